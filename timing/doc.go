// SPDX-License-Identifier: Apache-2.0

// Package timing is the timing model of docs/spec/timing.md: how many cycles a
// program or the layers of a network take on a card. It decides no value, and
// no value decides what it says: cycles follow from shapes alone.
//
// There are three entrances. Program goes through a program's instructions as
// the engines do, with tokens, and says where the time went. Layers cuts
// layers of convolutions and products into tiles and adds up the classes of equal tiles;
// a network takes well below a millisecond for each ten layers. ScaleSim counts as SCALE-Sim v3
// does, to the cycle.
//
// All arithmetic is with integers, so every host counts the same cycles. Nothing here
// keeps state; all functions may be called concurrently.
package timing
