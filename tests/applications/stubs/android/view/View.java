package android.view;

public class View {
    public View(android.content.Context context) { }
    public View(android.content.Context context, android.util.AttributeSet attributes) { }
    protected void onDraw(android.graphics.Canvas canvas) { }
    public final int getWidth() { return 0; }
    public final int getHeight() { return 0; }
    public Display getDisplay() { return null; }
    public void postInvalidate() { }
}
