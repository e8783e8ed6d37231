//go:build !amd64

package main

func old(_, _ func(string, func() error)) {}

func otherArch() {}

const x32 = 0
