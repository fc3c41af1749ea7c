"""Pure array functions: arrays in, arrays out (NumPy, CuPy, or any array of the array API standard).

No files, no widgets, no llama.cpp.
"""
