//! Who rings what: interrupt controllers, DeviceIDs and MSI routes from devicetree.
#![no_std]
