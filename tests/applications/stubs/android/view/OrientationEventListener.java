package android.view;

public abstract class OrientationEventListener {
    public static final int ORIENTATION_UNKNOWN = -1;
    public OrientationEventListener(android.content.Context context) { }
    public abstract void onOrientationChanged(int degrees);
    public void enable() { }
    public void disable() { }
}
