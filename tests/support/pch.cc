// Gives the precompiled header of the tests a target to belong to; test_support brings main().
