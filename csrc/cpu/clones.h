// A function marked CCF_CLONES is compiled once for every level of x86-64, and the loader chooses a copy. TSan's
// runtime is not ready when it does, so that its build has no clones.
#pragma once

#if defined(CCF_NO_CLONES) || !defined(__x86_64__)
#define CCF_CLONES
#else
#define CCF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
