package android.content;

public abstract class Context {
    public android.content.res.AssetManager getAssets() { return null; }
    public java.io.File getFilesDir() { return null; }
    public java.io.File getExternalFilesDir(String type) { return null; }
    public android.content.res.Resources getResources() { return null; }
    public final String getString(int id) { return null; }
    public final String getString(int id, Object... arguments) { return null; }
}
