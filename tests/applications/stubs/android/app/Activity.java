package android.app;

public class Activity extends android.content.Context {
    protected void onCreate(android.os.Bundle state) { }
    protected void onStart() { }
    protected void onStop() { }
    protected void onDestroy() { }
    public void setContentView(int layout) { }
    public void setContentView(android.view.View view) { }
    public <T extends android.view.View> T findViewById(int id) { return null; }
    public android.view.Window getWindow() { return null; }
    public android.content.Intent getIntent() { return null; }
    public final void runOnUiThread(Runnable action) { }
    public void finish() { }
}
