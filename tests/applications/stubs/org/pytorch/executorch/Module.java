package org.pytorch.executorch;

public class Module {
    public static final int LOAD_MODE_MMAP = 1;
    public static Module load(String path, int mode, int threads) { return null; }
    public EValue[] forward(EValue... inputs) { return null; }
    public void destroy() { }
}
