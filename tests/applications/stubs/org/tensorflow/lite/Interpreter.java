package org.tensorflow.lite;

public final class Interpreter implements AutoCloseable {
    public Interpreter(java.io.File file, Options options) { }
    public void runForMultipleInputsOutputs(Object[] inputs, java.util.Map<Integer, Object> outputs) { }
    public void close() { }
    public static class Options {
        public Options() { }
        public Options setNumThreads(int threads) { return this; }
    }
}
