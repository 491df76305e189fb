//! A GICv3 and ITS device model with lock-free injection, for virtual machine monitors and hypervisors.
#![no_std]
