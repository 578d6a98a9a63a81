package org.pytorch.executorch;

public abstract class Tensor {
    public static Tensor fromBlob(java.nio.FloatBuffer data, long[] shape) { return null; }
    public static Tensor fromBlob(java.nio.ByteBuffer data, long[] shape) { return null; }
    public static Tensor fromBlobUnsigned(java.nio.ByteBuffer data, long[] shape) { return null; }
    public float[] getDataAsFloatArray() { return null; }
    public int[] getDataAsIntArray() { return null; }
    public long[] getDataAsLongArray() { return null; }
    public byte[] getDataAsByteArray() { return null; }
    public byte[] getDataAsUnsignedByteArray() { return null; }
}
