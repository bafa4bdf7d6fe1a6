// Package cpus chooses processors for containers that have a cpu limit, so that those who run together share as little as possible.
package cpus

import (
	"slices"
	"sync"
)

// Allocator counts how many containers use each processor.
type Allocator struct {
	mu   sync.Mutex
	cpus []int
	load map[int]int
}

// NewAllocator chooses among `cpus`, the processors this process may use.
func NewAllocator(cpus []int) *Allocator { return &Allocator{cpus: cpus, load: map[int]int{}} }

// Take returns the `n` processors that are used least; none (meaning all) where n is 0 or no fewer than there are.
func (a *Allocator) Take(n int) []int {
	if n <= 0 || n >= len(a.cpus) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	order := slices.Clone(a.cpus)
	slices.SortStableFunc(order, func(x, y int) int { return a.load[x] - a.load[y] })
	taken := order[:n]
	a.count(taken, 1)
	return taken
}

// Keep counts the processors of a container that was there before this process.
func (a *Allocator) Keep(taken []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count(taken, 1)
}

// Give takes processors back.
func (a *Allocator) Give(taken []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count(taken, -1)
}

func (a *Allocator) count(taken []int, by int) {
	for _, cpu := range taken {
		a.load[cpu] += by
	}
}
