package android.graphics;

public class Paint {
    public static final int ANTI_ALIAS_FLAG = 1;
    public enum Style { FILL, STROKE, FILL_AND_STROKE }
    public Paint() { }
    public Paint(int flags) { }
    public int getColor() { return 0; }
    public void setColor(int color) { }
    public float getStrokeWidth() { return 0; }
    public void setStrokeWidth(float width) { }
    public Style getStyle() { return null; }
    public void setStyle(Style style) { }
    public float getTextSize() { return 0; }
    public void setTextSize(float textSize) { }
    public float measureText(String text) { return 0; }
}
