// Stands for the precompiled headers of the tests (tests/CMakeLists.txt), which need a source file of their own.
