// Package network gives pods addresses and names, and forwards Services to them.
package network

import (
	"fmt"
	"sync"
)

// Addresses hands out the loopback addresses of one podNetwork, in order, so that one given back rests before it is used again.
type Addresses struct {
	prefix string
	mu     sync.Mutex
	next   int
	used   map[string]bool
}

// NewAddresses hands out addresses of "127.70" and the like.
func NewAddresses(prefix string) *Addresses {
	return &Addresses{prefix: prefix, used: map[string]bool{}}
}

// Take returns an address that is free: never .0 or .255 in the last byte.
func (a *Addresses) Take() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range 1 << 16 {
		a.next = (a.next + 1) % (1 << 16)
		address := fmt.Sprintf("%s.%d.%d", a.prefix, a.next>>8, a.next&255)
		if last := a.next & 255; last != 0 && last != 255 && !a.used[address] {
			a.used[address] = true
			return address, nil
		}
	}
	return "", fmt.Errorf("every address of %s.0.0/16 is in use", a.prefix)
}

// Keep marks the address of a pod that was there before this process.
func (a *Addresses) Keep(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used[address] = true
}

// Give takes an address back.
func (a *Addresses) Give(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, address)
}
