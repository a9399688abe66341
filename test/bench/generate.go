package main

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package main bench ../../bpf/bench.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror
