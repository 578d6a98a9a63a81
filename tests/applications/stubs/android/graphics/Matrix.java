package android.graphics;

public class Matrix {
    public Matrix() { }
    public void setValues(float[] values) { }
}
