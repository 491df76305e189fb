//! A PCI function assigned to the guest. The function's memory is mapped into the guest, except for
//! the pages with the MSI-X table and the pending bits. We emulate its configuration space:
//!
//! | access of the guest | effect |
//! |---|---|
//! | command, cache line, latency, interrupt line | reaches the function |
//! | base addresses | can be sized, but not moved |
//! | MSI; Message Control, table and pending bits of MSI-X | handled by `irq-routing`'s models |
//! | all other writes | ignored |
//!
//! Each vector is a physical event that `irq-domain` manages. The event's handler signals the
//! model's vector, which contains the message that the guest wrote for its own controller. If a
//! message is lost, the reason appears on the console, once per vector. If a function has both MSI
//! and MSI-X, the guest sees only MSI-X; a null capability takes the place of MSI (PCI Code and ID
//! Assignment, capability ID 00h).

mod messages;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use image_rt::pci::{Bar, Function};
use image_rt::println;
use irq_domain::pci::FunctionStore;
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig};
use irq_routing::Router;
use messages::{Messages, PAGE};
use msi_types::MsiParent;
use vgic::AccessWidth;

use crate::irqchip;

const COMMAND: u16 = 0x04;
const CACHE_LINE: u16 = 0x0c;
const FIRST_BAR: u16 = 0x10;
const EXPANSION_ROM: u16 = 0x30;
const INTERRUPT_LINE: u16 = 0x3c;
const BAR_FLAGS: u32 = 0xf;

/// A function that is assigned to the guest.
pub(crate) struct Assigned {
    function: Function,
    messages: Arc<Messages>,
    /// Values that the guest wrote to the BARs.
    bars: [AtomicU32; 6],
    _device: MsiDevice,
    _handles: Vec<IrqHandle>,
}

impl Assigned {
    /// Assigns a function to the guest. Returns `None` if the function has neither MSI nor MSI-X.
    pub(crate) fn new(
        function: Function,
        parent: Arc<dyn MsiParent>,
        router: Arc<Router>,
    ) -> Option<Self> {
        let messages = Arc::new(Messages::new(&function, router)?);
        let FunctionStore { store, shape } = function.store().ok()?;
        let slots = store.slots();
        let config = MsiDeviceConfig::new("passthrough", function.requester, parent, store);
        let device = MsiDevice::attach(irqchip::get().interrupts(), config);
        let device = device.expect("the function could not be attached to its MSI parent");
        let vectors = device.allocate(shape, slots..=slots);
        let handles =
            vectors.expect("physical vectors could not be allocated").into_iter().map(|vector| {
                let (messages, slot) = (messages.clone(), vector.slot);
                let is_told = AtomicBool::new(false);
                let handler = move |_: &irq_domain::IrqContext<'_>| {
                    let Err(reason) = messages.signal(slot) else { return };
                    if !is_told.swap(true, Relaxed) {
                        let function = function.requester.get();
                        println!("hypervisor: vector {slot} of function {function:#06x}: {reason}");
                    }
                };
                device
                    .request(slot, "passthrough", handler)
                    .expect("the vector was allocated above")
            });
        let handles = handles.collect();
        let address = |index: usize| match function.bars[index] {
            Some(bar) => bar.address as u32,
            None => 0,
        };
        let bars = core::array::from_fn(|index| AtomicU32::new(address(index)));
        Some(Self { function, messages, bars, _device: device, _handles: handles })
    }

    /// Returns the physical address of the function's configuration space.
    pub(crate) fn config_base(&self) -> u64 {
        self.function.config_base
    }

    /// Stops the function from sending messages and accessing memory.
    pub(crate) fn stop(&self) {
        const MASTER: u16 = 1 << 2;
        let command = self.function.config.read16(COMMAND);
        self.function.config.write16(COMMAND, command & !MASTER);
    }

    /// Returns the pages that the guest may access.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<u64>> {
        let bars = self.function.bars.iter().flatten();
        let pages = bars.flat_map(|bar| {
            (bar.address..bar.address + bar.length.next_multiple_of(PAGE)).step_by(PAGE as usize)
        });
        pages.map(|page| page..page + PAGE).filter(move |page| {
            let trap = |memory: &Range<u64>| memory.start < page.end && page.start < memory.end;
            !self.messages.memory().any(trap)
        })
    }

    /// Reads from a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(crate) fn read_page(&self, address: u64, width: AccessWidth) -> Option<u64> {
        self.messages.read_page(address, width)
    }

    /// Writes to a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(crate) fn write_page(&self, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        self.messages.write_page(address, width, value)
    }

    /// Reads configuration space.
    pub(crate) fn read_config(&self, offset: u16, width: AccessWidth) -> u64 {
        let word = u64::from(self.config_word(offset & !3));
        word >> (8 * (offset & 3)) & width.mask()
    }

    fn config_word(&self, offset: u16) -> u32 {
        let word = self.function.config.read32(offset);
        if let Some(index) = bar_index(offset) {
            return self.bar_word(index, word);
        }
        match offset {
            EXPANSION_ROM => 0,
            _ => self.messages.config_word(offset, word),
        }
    }

    /// Returns the value of a base address register: the address bits above the region's size, as
    /// the guest wrote them.
    fn bar_word(&self, index: usize, physical: u32) -> u32 {
        let written = self.bars[index].load(Relaxed);
        let is_upper = index.checked_sub(1).and_then(|lower| self.wide_bar(lower));
        match (self.function.bars[index], is_upper) {
            (Some(bar), _) => written & size_mask(bar) as u32 | physical & BAR_FLAGS,
            (None, Some(bar)) => written & (size_mask(bar) >> 32) as u32,
            (None, None) => 0,
        }
    }

    /// Returns the region if this register is the lower half of a 64-bit BAR.
    fn wide_bar(&self, index: usize) -> Option<Bar> {
        const TYPE: u32 = 0x7;
        const WIDE: u32 = 0x4;
        let register = FIRST_BAR + 4 * index as u16;
        self.function.bars[index].filter(|_| self.function.config.read32(register) & TYPE == WIDE)
    }

    /// Writes configuration space.
    pub(crate) fn write_config(&self, offset: u16, width: AccessWidth, value: u64) {
        if let (Some(index), AccessWidth::Word) = (bar_index(offset), width) {
            self.bars[index].store(value as u32, Relaxed);
        }
        match (offset, width) {
            (COMMAND | CACHE_LINE, AccessWidth::Half) => {
                self.function.config.write16(offset, value as u16);
            }
            (COMMAND, AccessWidth::Word) => self.function.config.write16(offset, value as u16),
            (INTERRUPT_LINE, AccessWidth::Byte) => {
                self.function.config.write8(offset, value as u8);
            }
            _ => {
                let bytes = &value.to_le_bytes()[..width.bytes() as usize];
                self.messages.write_config(offset, bytes);
            }
        }
    }
}

/// Returns the index of the base address register at an offset.
fn bar_index(offset: u16) -> Option<usize> {
    let index = usize::from(offset.checked_sub(FIRST_BAR)? / 4);
    (index < 6 && offset.is_multiple_of(4)).then_some(index)
}

fn size_mask(bar: Bar) -> u64 {
    !(bar.length - 1)
}
