//! A PCI function assigned to the guest. The function's memory is mapped into the guest, except for
//! the pages with the MSI-X table and the pending bits. We emulate its configuration space:
//!
//! | access of the guest | effect |
//! |---|---|
//! | base addresses, memory space enable | moves the function's memory in the guest's address space |
//! | other command bits but I/O space; cache line, latency, interrupt line | reaches the function |
//! | Interrupt Disable of a function without an INTx line | ignored; the function has no pin |
//! | MSI; Message Control, table and pending bits of MSI-X | handled by `irq-routing`'s models |
//! | all other writes | ignored |
//!
//! The function itself never moves and always decodes its memory. The guest's accesses to base
//! addresses and to the command register may have any width.
//!
//! Each vector is a physical event that `irq-domain` manages. The event's handler signals the
//! model's vector, which contains the message that the guest wrote for its own controller. If a
//! message is lost, the reason appears on the console, once per vector. If a function has both MSI
//! and MSI-X, the guest sees only MSI-X; a null capability takes the place of MSI (PCI Code and ID
//! Assignment, capability ID 00h). While the guest has disabled its messages, the function sends
//! none, but asserts INTx.

use crate::guest_smmu::{Doorbells, GuestSmmu};
use crate::messages::{Messages, PAGE, Vector};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use el2_vm::messages::{self, MessageVector};
use el2_vm::{Gic, direct, irqchip};
use gic_arch::Lpi;
use image_rt::lock::IrqMutex;
use image_rt::pci::{self, Function};
use image_rt::println;
use irq_domain::pci::FunctionStore;
use irq_domain::{IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig};
use irq_routing::Router;
use msi_types::{Delivery, DeviceId, MessageStore, MsiMessage, MsiParent, RequesterId, SignalMsi};
use vgic::AccessWidth;

const COMMAND: u16 = 0x04;
/// Upper half of the command register.
const COMMAND_UPPER: u16 = COMMAND + 1;
/// Interrupt Disable, in the upper half: the function does not assert INTx.
const INTX_DISABLE: u8 = 1 << 2;
const IO_SPACE: u8 = 1 << 0;
const MEMORY_SPACE: u8 = 1 << 1;
const CACHE_LINE: u16 = 0x0c;
const LATENCY: u16 = 0x0d;
const FIRST_BAR: u16 = 0x10;
const LAST_BAR_BYTE: u16 = 0x27;
const EXPANSION_ROM: u16 = 0x30;
const INTERRUPT_LINE: u16 = 0x3c;
/// Bits of the word at [`INTERRUPT_LINE`] that contain the pin.
const INTERRUPT_PIN: u32 = 0xff00;
/// The last vector of a PCI MSI.
const LAST_VECTOR: u32 = 31;
/// Bits of a base address register that do not belong to the address.
const BAR_FLAGS: u32 = 0xf;
/// The register has 64 bits, of which the upper half is in the next register.
const BAR_WIDE: u32 = 0x4;
/// Bit of the word at [`CACHE_LINE`]: the device has several functions.
const MULTI_FUNCTION: u32 = 1 << 23;

/// The guest's GIC and SMMU, if the guest owns the SMMU, and the number of the function's first
/// word in pages that receive messages.
type SmmuOwner = (Arc<Gic>, Arc<GuestSmmu>, usize);

/// A function that is assigned to the guest.
pub(crate) struct Assigned {
    /// Number of the guest.
    guest: usize,
    /// The function's address in the guest.
    pub(crate) place: RequesterId,
    function: Function,
    messages: Arc<Messages>,
    store: Arc<dyn MessageStore>,
    owner: Option<SmmuOwner>,
    /// The machine's message of each vector. The store reads none while it is disabled.
    composed: Vec<Option<MsiMessage>>,
    /// `true` if the function's INTx reaches the guest.
    has_line: bool,
    /// `true` while the function sends messages instead of asserting INTx.
    sends: IrqMutex<bool>,
    /// `true` if the guest has set Memory Space Enable.
    decodes: AtomicBool,
    /// `true` once the guest has ended.
    is_stopped: AtomicBool,
    /// Bytes that the guest wrote to the base address registers.
    bars: [AtomicU8; 24],
    /// Flags of each base address register, and the mask of its address bits.
    bar_bits: [(u32, u32); 6],
    _device: MsiDevice,
    _handles: Vec<IrqHandle>,
}

impl Assigned {
    /// Assigns a function to the guest, which may own the SMMU in front of it. Returns `None` if
    /// the function has neither MSI nor MSI-X. With `has_line`, the function's INTx must reach the
    /// guest.
    pub(crate) fn new(
        function: Function,
        (guest, place, has_line): (usize, RequesterId, bool),
        (parent, owner): (Arc<dyn MsiParent>, Option<SmmuOwner>),
        router: Arc<Router>,
    ) -> Option<Self> {
        let messages = Arc::new(Messages::new(&function, DeviceId::new(place.get()), router)?);
        let FunctionStore { store, shape } = pci::store(&function).ok()?;
        let slots = store.slots();
        let requester = function.requester().at_host();
        let config = MsiDeviceConfig::new("passthrough", requester, parent, store.clone());
        let device = MsiDevice::attach(irqchip::get().interrupts(), config);
        let device = device.expect("the function could not be attached to its MSI parent");
        let vectors = device.allocate(shape, slots..=slots);
        let vectors = vectors.expect("physical vectors could not be allocated");
        if direct::is_wanted() {
            messages.inject_directly((guest, place), &store, &vectors);
        }
        let handles = vectors.into_iter().map(|vector| {
            let (messages, slot) = (messages.clone(), vector.slot);
            let signaled = Arc::new(Vector::new(messages, slot, requester));
            // The guest's SMMU translates the messages of its functions.
            if let (Ok(physical), None) = (Lpi::try_from(vector.hwirq.get()), &owner) {
                messages::add(physical, guest, signaled.clone());
            }
            let handler = move |_: &IrqContext<'_>| signaled.signal(&mut |_, _| false);
            device.request(slot, "passthrough", handler).expect("the vector was allocated above")
        });
        let handles = handles.collect();
        let bar_bits = bar_bits(&function);
        let bars = core::array::from_fn(|index| {
            AtomicU8::new(function.config().read8(FIRST_BAR + index as u16))
        });
        let message = |slot| store.read_back(slot).and_then(|state| state.message);
        let composed = (0..slots).map(message).collect();
        store.set_enabled(false).expect("a function that has sent no message can be disabled");
        set_intx(&function, has_line);
        Some(Self {
            guest,
            place,
            function,
            messages,
            store,
            owner,
            composed,
            has_line,
            sends: IrqMutex::new(false),
            decodes: AtomicBool::new(true),
            is_stopped: AtomicBool::new(false),
            bars,
            bar_bits,
            _device: device,
            _handles: handles,
        })
    }

    /// Returns the function's requester ID on the machine.
    pub(crate) fn requester(&self) -> RequesterId {
        self.function.requester().at_host()
    }

    /// Makes the function send messages while the guest has enabled them.
    fn pass_enable(&self) {
        if direct::is_on() {
            direct::follow_messages(self.guest, DeviceId::new(self.place.get()));
        }
        if self.messages.are_enabled() {
            self.pass_addresses();
        }
        // With the lock, the last of several vCPUs' writes takes effect.
        self.sends.with(|sends| {
            let was = mem::replace(sends, self.messages.are_enabled());
            if was != *sends
                && let Err(error) = self.store.set_enabled(*sends)
            {
                println!("hypervisor: function {:#06x}: {error}", self.place.get());
            }
        });
    }

    /// Makes the function send its messages to the addresses that the guest wrote, if the guest
    /// owns the SMMU that translates them.
    fn pass_addresses(&self) {
        let Some((_, smmu, first)) = &self.owner else { return };
        let store = &self.store;
        for (slot, composed) in (0..).zip(&self.composed) {
            let Some(address) = self.messages.address(slot) else { continue };
            let read = store.read_back(slot).and_then(|state| state.message);
            let Some(old) = read.or(*composed) else { continue };
            let word = first + usize::from(slot);
            let address = match smmu.doorbells {
                Some(_) => Doorbells::physical(address, word),
                None => address,
            };
            if read.is_some_and(|message| message.address == address) {
                continue;
            }
            let written = store.update(&mut |update| {
                update.mask(slot);
                update.write(slot, MsiMessage { address, ..old });
                update.unmask(slot);
            });
            if let Err(error) = written {
                println!("hypervisor: function {:#06x}: {error}", self.place.get());
            }
        }
    }

    /// Returns the number of vectors.
    pub(crate) fn slots(&self) -> usize {
        self.store.slots().into()
    }

    /// Passes messages on that wait in memory. A message of a masked vector waits on.
    pub(crate) fn take_messages(&self) {
        let Some((gic, smmu, first)) = &self.owner else { return };
        let Some(doorbells) = &smmu.doorbells else { return };
        for slot in 0..self.store.slots() {
            let Some(address) = self.messages.address(slot) else { continue };
            for (page, data) in doorbells.take(first + usize::from(slot)) {
                let address = page | address & (PAGE - 1);
                let base = self.store.read_back(slot).and_then(|state| state.message);
                // A function replaces the low bits of a PCI MSI's data by the vector.
                let added = data.wrapping_sub(base.map_or(data, |it| it.data)) & LAST_VECTOR;
                let data = self.messages.message(slot + added as u16).data;
                let sender = DeviceId::new(self.place.get());
                let delivery = gic.signal_msi(sender, MsiMessage { address, data });
                if delivery != Delivery::Pending {
                    let function = self.requester().get();
                    println!("hypervisor: a message of function {function:#06x}: {delivery:?}");
                }
            }
        }
    }

    /// Stops the function from sending messages, asserting INTx and accessing memory.
    pub(crate) fn stop(&self) {
        const MASTER: u16 = 1 << 2;
        self.is_stopped.store(true, SeqCst);
        set_intx(&self.function, false);
        let config = self.function.config();
        config.write16(COMMAND, config.read16(COMMAND) & !MASTER);
    }

    /// Returns the BAR and the offset of an address in the guest's address space, if the guest has
    /// placed the function's memory there.
    fn locate(&self, address: u64) -> Option<(usize, u64)> {
        (0..self.bar_bits.len()).find_map(|index| {
            let length = self.function.bar(index as u8)?.cpu.size().max(PAGE);
            let is_wide = self.bar_bits[index].0 & BAR_WIDE != 0;
            let upper = if is_wide { self.bar_word(index + 1) } else { 0 };
            let base = u64::from(upper) << 32 | u64::from(self.bar_word(index) & !BAR_FLAGS);
            let offset = address.checked_sub(base).filter(|offset| *offset < length)?;
            self.decodes.load(SeqCst).then_some((index, offset))
        })
    }

    /// Returns the physical address of a page of the guest's address space, if the function's
    /// memory is there and the guest may access it.
    pub(crate) fn page(&self, page: u64) -> Option<u64> {
        let (index, offset) = self.locate(page)?;
        let bar = self.function.bar(index as u8)?;
        (!self.messages.traps(index, offset)).then_some(bar.cpu.base() + offset)
    }

    /// Reads from a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(crate) fn read_memory(&self, address: u64, width: AccessWidth) -> Option<u64> {
        let (bar, offset) = self.locate(address)?;
        self.messages.read_page(bar, offset, width)
    }

    /// Writes to a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(crate) fn write_memory(&self, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        let (bar, offset) = self.locate(address)?;
        self.messages.write_page(bar, offset, width, value)?;
        self.pass_enable();
        Some(())
    }

    /// Reads configuration space.
    pub(crate) fn read_config(&self, offset: u16, width: AccessWidth) -> u64 {
        let word = u64::from(self.config_word(offset & !3));
        word >> (8 * (offset & 3)) & width.mask()
    }

    fn config_word(&self, offset: u16) -> u32 {
        let word = self.function.config().read32(offset);
        match offset {
            COMMAND if self.decodes.load(SeqCst) => word,
            COMMAND => word & !u32::from(MEMORY_SPACE),
            CACHE_LINE => word & !MULTI_FUNCTION,
            FIRST_BAR..=LAST_BAR_BYTE => self.bar_word(usize::from((offset - FIRST_BAR) / 4)),
            EXPANSION_ROM => 0,
            INTERRUPT_LINE if !self.has_line => word & !INTERRUPT_PIN,
            _ => self.messages.config_word(offset, word),
        }
    }

    /// Returns a base address register: the address bits above the region's size, as the guest
    /// wrote them.
    fn bar_word(&self, index: usize) -> u32 {
        let byte = |at: usize| self.bars.get(4 * index + at).map_or(0, |byte| byte.load(SeqCst));
        let (flags, mask) = self.bar_bits.get(index).copied().unwrap_or_default();
        u32::from_le_bytes(core::array::from_fn(byte)) & mask | flags
    }

    /// Writes configuration space. Calls `unmap` if the function's memory may have left its place
    /// in the guest's address space.
    pub(crate) fn write_config(
        &self,
        offset: u16,
        width: AccessWidth,
        value: u64,
        unmap: impl FnOnce(),
    ) {
        let config = self.function.config();
        let bytes = &value.to_le_bytes()[..width.bytes() as usize];
        let mut moves = false;
        for (at, &byte) in (offset..).zip(bytes) {
            moves |= matches!(at, COMMAND | FIRST_BAR..=LAST_BAR_BYTE);
            match at {
                COMMAND => {
                    self.decodes.store(byte & MEMORY_SPACE != 0, SeqCst);
                    config.write8(at, byte & !IO_SPACE | MEMORY_SPACE);
                    // Another vCPU may have ended the guest in the meantime.
                    if self.is_stopped.load(SeqCst) {
                        self.stop();
                    }
                }
                FIRST_BAR..=LAST_BAR_BYTE => {
                    self.bars[usize::from(at - FIRST_BAR)].store(byte, SeqCst);
                }
                COMMAND_UPPER if !self.has_line => config.write8(at, byte | INTX_DISABLE),
                COMMAND_UPPER | CACHE_LINE | LATENCY | INTERRUPT_LINE => config.write8(at, byte),
                _ => {}
            }
        }
        if moves {
            unmap();
        }
        self.messages.write_config(offset, bytes);
        self.pass_enable();
    }
}

/// Lets a function assert INTx, or keeps it from doing so.
pub(crate) fn set_intx(function: &Function, is_on: bool) {
    let command = function.config().read8(COMMAND_UPPER);
    let disable = if is_on { 0 } else { INTX_DISABLE };
    function.config().write8(COMMAND_UPPER, command & !INTX_DISABLE | disable);
}

/// Returns the flags of each base address register, and the mask of its address bits. To the guest,
/// each region has at least a page, so that it cannot place two of them on the same page.
fn bar_bits(function: &Function) -> [(u32, u32); 6] {
    let mut bits = [(0, 0); 6];
    for index in 0..bits.len() {
        let Some(bar) = function.bar(index as u8) else { continue };
        let flags = function.config().read32(FIRST_BAR + 4 * index as u16) & BAR_FLAGS;
        let mask = !(bar.cpu.size().max(PAGE) - 1);
        bits[index] = (flags, mask as u32);
        if flags & BAR_WIDE != 0
            && let Some(upper) = bits.get_mut(index + 1)
        {
            upper.1 = (mask >> 32) as u32;
        }
    }
    bits
}
