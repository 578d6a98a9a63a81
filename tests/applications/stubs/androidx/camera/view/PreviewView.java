package androidx.camera.view;

public final class PreviewView extends android.view.View {
    public PreviewView(android.content.Context context) { super(context); }
    public androidx.camera.core.Preview.SurfaceProvider getSurfaceProvider() { return null; }
}
