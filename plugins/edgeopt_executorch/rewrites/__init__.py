"""Changes to a program's graph that let XNNPACK's lowering take it; none changes what the program computes."""
