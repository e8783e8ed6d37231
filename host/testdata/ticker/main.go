// Command ticker ticks every millisecond and, for every line on its standard input, prints the largest gap between two ticks
// since the line before, in microseconds: how long this machine kept a process that does nothing else from running.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sync"
	"time"
)

func main() {
	var mu sync.Mutex
	var largest time.Duration
	go func() {
		last := time.Now()
		for now := range time.Tick(time.Millisecond) {
			mu.Lock()
			largest = max(largest, now.Sub(last))
			mu.Unlock()
			last = now
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		mu.Lock()
		fmt.Println(largest.Microseconds())
		largest = 0
		mu.Unlock()
	}
}
