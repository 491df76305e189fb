//! Memory-mapped configuration space.

#![expect(clippy::cast_possible_truncation, reason = "only the low bits are needed")]

use irq_domain::pci::{AccessContext, ConfigSpace, Ecam, EcamWindow};
use msi_types::RequesterId;
use msi_types::pci::BusRange;
use std::sync::{Arc, Mutex};

/// A log of accesses: the offset, the width, and the value of writes.
#[derive(Default)]
struct Window(Mutex<Vec<(u64, u8, Option<u32>)>>);

impl Window {
    fn note(&self, offset: u64, width: u8, value: Option<u32>) -> u32 {
        assert!(offset + u64::from(width) <= EcamWindow::length(self), "{offset:#x}");
        assert_eq!(offset % u64::from(width), 0, "{offset:#x}");
        self.0.lock().unwrap().push((offset, width, value));
        0x12
    }
}

#[rustfmt::skip]
impl EcamWindow for Window {
    fn length(&self) -> u64 { 0x18_0000 }
    fn read8(&self, offset: u64) -> u8 { self.note(offset, 1, None) as u8 }
    fn read16(&self, offset: u64) -> u16 { self.note(offset, 2, None) as u16 }
    fn read32(&self, offset: u64) -> u32 { self.note(offset, 4, None) }
    fn write8(&self, offset: u64, value: u8) { self.note(offset, 1, Some(value.into())); }
    fn write16(&self, offset: u64, value: u16) { self.note(offset, 2, Some(value.into())); }
    fn write32(&self, offset: u64, value: u32) { self.note(offset, 4, Some(value)); }
}

/// Creates a window with room for one and a half buses, although firmware reports three.
fn ecam() -> (Ecam, Arc<Window>) {
    let window = Arc::new(Window::default());
    (Ecam::new(window.clone(), BusRange { first: 0x40, last: 0x42 }), window)
}

#[test]
fn ecam_offset_encodes_bus_device_and_function() {
    let (ecam, window) = ecam();
    let function = ecam.function(RequesterId::pci(0x41, 2, 3)).unwrap();
    function.write16(0x104, 0xabcd);
    assert_eq!(function.read8(0xfff), 0x12);
    let base = 0x10_0000 | 2 << 15 | 3 << 12;
    let expected = [(base + 0x104, 2, Some(0xabcd)), (base + 0xfff, 1, None)];
    assert_eq!(*window.0.lock().unwrap(), expected);
    assert_eq!(function.context(), AccessContext::Any);
}

#[test]
fn functions_outside_of_the_window_do_not_exist() {
    let (ecam, _) = ecam();
    let exists = |address| ecam.function(RequesterId::new(address)).is_some();
    assert!(exists(0x4000) && exists(0x417f));
    assert!(!exists(0x4180), "beyond the window");
    assert!(!exists(0x4200) && !exists(0x4300) && !exists(0x3fff));
    assert!(!exists(0x1_4000) && !exists(u32::MAX), "no PCI address");
}

#[test]
fn access_beyond_the_function_is_refused() {
    let (ecam, window) = ecam();
    let function = ecam.function(RequesterId::pci(0x40, 0, 0)).unwrap();
    for offset in [0x1000, 0x1001, 0xffff] {
        function.write8(offset, 0);
        assert_eq!(function.read8(offset), u8::MAX);
    }
    for offset in [1, 0xfff, 0x1000] {
        function.write16(offset, 0);
        assert_eq!(function.read16(offset), u16::MAX);
    }
    for offset in [2, 0xffe, 0x1000, 0xfffc] {
        function.write32(offset, 0);
        assert_eq!(function.read32(offset), u32::MAX);
    }
    assert!(window.0.lock().unwrap().is_empty());
}
