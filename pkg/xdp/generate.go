package xdp

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package xdp -type layout_version -type verdict -type drop_reason -type service_flag -type server_flag -type flow_phase -type flow_bits -type flow_place -type box_fact_kind -type advert_fate -type router_flag -type interface_restore -type event -type capture -type ring_line -type ring_word -type watch_kind -type why -type address -type refusal -type rate_kind -type source_key -type source xdirector ../../bpf/xdirector.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror
