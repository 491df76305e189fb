//! Drivers for the Arm GICv3: distributor, redistributors, CPU interface, LPIs and ITS, for any kernel or hypervisor.
#![no_std]
