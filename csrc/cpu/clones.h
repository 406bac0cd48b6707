// One copy of a loop for every level of x86-64, chosen when the library is loaded. TSan runs before that choice.
#pragma once

#if defined(CCF_NO_CLONES) || !defined(__x86_64__)
#define CCF_CLONES
#else
#define CCF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
