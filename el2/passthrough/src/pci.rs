//! The guest's view of PCI: QEMU's host bridge, with only those functions that are assigned to this
//! guest. They are all on bus 0, each as a device of its own. Other addresses of configuration
//! space read as all ones, as do addresses of the windows at which the guest has placed no
//! function. Functions have no I/O ports.

use crate::candidates::{Candidate, MOST, pin};
use crate::function::Assigned;
use crate::guest_smmu::{self, GuestSmmu};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use doorbell_facts::{Fact, HypervisorFact};
use el2_vm::{Gic, Guest, irqchip};
use gic_firmware::{PciHost, Region};
use image_rt::pci;
use image_rt::println;
use irq_routing::{GsiSpace, Inputs, Router};
use msi_types::RequesterId;
use msi_types::pci::{PciSpace, PciWindow};
use vgic::AccessWidth;

/// Takes a free device of a guest's bus for a function. The device and the function's pin determine
/// the line.
fn take_device(free: &mut Vec<u8>, candidate: &mut Candidate, lines: [u32; 4]) -> u8 {
    let pin = pin(&candidate.function);
    let at = candidate.line.and_then(|line| {
        let leads =
            |device: &u8| pin.is_some_and(|pin| swizzled(lines, *device, pin.number()) == line);
        free.iter().position(leads).ok_or("the guest's bus has no more devices on its line")
    });
    if let (Err(reason), Some(_)) = (at, pin) {
        candidate.line = Err(reason);
        let (function, reason) = (candidate.function.requester().function.get(), reason.into());
        println!("{}", Fact::from(HypervisorFact::NoIntx { function, reason }));
    }
    free.remove(at.unwrap_or(0))
}

/// Returns the INTID of a pin (1 for INTA) of a device on a guest's bus, where `lines` are those of
/// device 0's pins (PCI Local Bus 3.0 §2.2.6).
const fn swizzled(lines: [u32; 4], device: u8, pin: u8) -> u32 {
    lines[(device as usize + pin as usize + 3) % lines.len()]
}

/// A host bridge, with the functions behind it that are assigned to the guest.
pub struct Pci {
    /// ECAM window. The guest sees it at the same address.
    pub config: Range<u64>,
    /// Windows for I/O ports and for the functions' memory. The guest sees them at the same
    /// addresses, and may place its functions anywhere in those for memory.
    pub windows: Vec<PciWindow>,
    functions: Vec<Assigned>,
    lines: [u32; 4],
    /// The SMMU in front of the functions, if the guest owns it.
    pub smmu: Option<Arc<GuestSmmu>>,
}

impl Pci {
    /// Assigns these functions, which must have MSI or MSI-X, to the guest. The caller must confine
    /// their DMA. `lines` are the INTIDs of the pins of device 0 on the guest's bus.
    ///
    /// # Panics
    /// Panics if the host bridge has no ECAM window, or if a function cannot be attached to the
    /// machine's ITS.
    pub fn assign(
        host: &PciHost,
        candidates: Vec<Candidate>,
        lines: [u32; 4],
        (gic, smmu): (&Arc<Gic>, Option<Arc<GuestSmmu>>),
    ) -> Self {
        let ecam = pci::ecam(host).expect("the host bridge has an ECAM window");
        let router = Router::new(GsiSpace::default(), inputs(gic, smmu.as_ref()));
        let router = router.expect("not enough memory for the routes");
        let router = Arc::new(router);
        let parent = |requester| irqchip::get().pci_parent(host, requester);
        let (mut words, mut free) = (0, (1..=MOST as u8).collect());
        let functions = candidates.into_iter().filter_map(|mut candidate| {
            let place = RequesterId::pci(0, take_device(&mut free, &mut candidate, lines), 0);
            let has_line = candidate.line.is_ok();
            let function = candidate.function;
            let (guest, address) = (gic.guest(), function.requester().function.get());
            let parent = parent(function.requester())
                .expect("firmware routes the function's messages to an ITS");
            let owner = smmu.as_ref().map(|smmu| (gic.clone(), smmu.clone(), words));
            let assigned =
                Assigned::new(function, (guest, place, has_line), (parent, owner), router.clone())?;
            words += assigned.slots();
            let is_limited = smmu.as_ref().is_some_and(|smmu| smmu.doorbells.is_some());
            assert!(
                !is_limited || words <= guest_smmu::WORDS,
                "guest-smmu with several vCPUs: the functions have more than {} vectors",
                guest_smmu::WORDS
            );
            let fact = HypervisorFact::Assigned { guest, function: address, at: place.get() };
            println!("{}", Fact::from(fact));
            Some(assigned)
        });
        Self {
            config: addresses(ecam),
            windows: host.windows.iter().map(|window| window.value).collect(),
            functions: functions.collect(),
            lines,
            smmu,
        }
    }

    /// Returns the INTID of a pin (1 for INTA) of a device on the guest's bus.
    pub const fn line(&self, device: u8, pin: u8) -> u32 {
        swizzled(self.lines, device, pin)
    }

    /// Returns the functions' requester IDs in the guest, with those on the machine, which are
    /// their StreamIDs.
    pub fn streams(&self) -> impl Iterator<Item = [u32; 2]> {
        let functions = self.functions.iter();
        functions.map(|it| [it.place, it.requester()].map(RequesterId::get))
    }

    /// Returns the windows for the functions' memory, whose CPU and bus addresses are the same.
    fn memory(&self) -> impl Iterator<Item = Range<u64>> {
        let windows = self.windows.iter().filter(|window| window.space() != PciSpace::Io);
        windows.map(|window| addresses(window.cpu()))
    }

    fn is_memory(&self, address: u64) -> bool {
        self.memory().any(|window| window.contains(&address))
    }

    fn is_window(&self, address: u64) -> bool {
        self.windows.iter().any(|window| addresses(window.cpu()).contains(&address))
    }

    /// Returns the physical address of a page in a window, if a function's memory is there that
    /// the guest may access without trapping.
    pub fn page(&self, page: u64) -> Option<u64> {
        let mut functions = self.functions.iter().filter(|_| self.is_memory(page));
        functions.find_map(|function| function.page(page))
    }

    /// Passes messages on that wait in memory, if the guest owns the SMMU, and requests the next
    /// poll. Must be called by [`Devices::poll`](el2_vm::Devices::poll).
    pub fn take_messages(&self) {
        self.smmu.iter().for_each(|smmu| smmu.start());
        self.functions.iter().for_each(Assigned::take_messages);
    }

    /// Stops the functions from sending messages and accessing memory.
    pub fn stop(&self) {
        self.functions.iter().for_each(Assigned::stop);
    }

    /// Reads from configuration space or from a window. Returns `None` for other addresses.
    pub fn read(&self, address: u64, width: AccessWidth) -> Option<u64> {
        let value = if self.is_memory(address) {
            self.functions.iter().find_map(|function| function.read_memory(address, width))
        } else if self.config.contains(&address) {
            let found = self.function_at(address);
            found.map(|(function, offset)| function.read_config(offset, width))
        } else if self.is_window(address) {
            None
        } else {
            return None;
        };
        Some(value.unwrap_or(u64::MAX) & width.mask())
    }

    /// Writes to configuration space or to a window. Returns `None` for other addresses. Unmaps the
    /// functions' memory if the guest may have moved it.
    pub fn write(&self, guest: &Guest, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        if self.is_memory(address) {
            let mut functions = self.functions.iter();
            functions.find_map(|function| function.write_memory(address, width, value));
        } else if !self.config.contains(&address) {
            return self.is_window(address).then_some(());
        } else if let Some((function, offset)) = self.function_at(address) {
            function.write_config(offset, width, value, || guest.unmap(self.memory()));
        }
        Some(())
    }

    fn function_at(&self, address: u64) -> Option<(&Assigned, u16)> {
        let place = (address - self.config.start) >> 12;
        let mut functions = self.functions.iter();
        let found = functions.find(|function| u64::from(function.place.get()) == place)?;
        Some((found, (address & 0xfff) as u16))
    }
}

fn addresses(region: Region) -> Range<u64> {
    region.base()..region.base() + region.size()
}

/// Returns the destinations of devices' messages, behind the guest's SMMU if it owns one.
fn inputs(gic: &Arc<Gic>, smmu: Option<&Arc<GuestSmmu>>) -> Inputs {
    let inputs = Inputs::new(gic.clone()).with_its(gic.doorbells());
    match smmu {
        Some(smmu) => inputs.with_translator(smmu.clone()),
        None => inputs,
    }
}
