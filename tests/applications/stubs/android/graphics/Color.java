package android.graphics;

public class Color {
    public static int argb(int alpha, int red, int green, int blue) { return 0; }
}
