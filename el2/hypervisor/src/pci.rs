//! The guest's view of PCI: QEMU's host bridge, with only those functions that are assigned to this
//! guest. They are all on bus 0, each as a device of its own. Other addresses of configuration
//! space read as all ones, as do addresses of the windows at which the guest has placed no
//! function. Functions have no I/O ports.

use crate::controller;
use crate::gic::Gic;
use crate::guest_smmu::{self, GuestSmmu};
use crate::passthrough::{self, Assigned};
use crate::{irqchip, layout};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use doorbell_facts::{Fact, HypervisorFact};
use gic_firmware::{IntxPin, PciHost, Region};
use image_rt::pci::{self, Function};
use image_rt::println;
use irq_domain::pci::{enable_acs, isolation_groups};
use irq_routing::{GsiSpace, Router};
use msi_types::pci::{PciSpace, PciWindow, msi, msix};
use msi_types::{RequesterId, Trigger};
use vgic::AccessWidth;

/// Number of functions that fit on a guest's bus. Device 0 is left out, because its DeviceID is
/// that of the messages that vCPUs send.
pub(crate) const MOST: usize = 31;

/// A function that may be assigned to a guest.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) function: Function,
    /// Functions that have the same number must be assigned to the same guest.
    pub(crate) group: usize,
    /// The function's INTx line, or the reason why it must not assert INTx.
    line: Result<u32, &'static str>,
}

impl Candidate {
    /// Returns the INTID of the function's INTx line.
    pub(crate) fn line(&self) -> Option<u32> {
        self.line.ok()
    }
}

/// Returns the machine's functions that may be assigned. Bridges and functions without MSI and
/// MSI-X stay with the hypervisor. No function asserts INTx.
pub(crate) fn functions(host: &PciHost) -> Vec<Candidate> {
    let functions = pci::enumerate(irqchip::get().description(), host);
    for function in &functions {
        enable_acs(&*function.config);
        passthrough::set_intx(function, false);
    }
    let isolation: Vec<_> = functions.iter().map(Function::isolation).collect();
    let groups = isolation_groups(&isolation).expect("not enough memory for the groups");
    let kinds = [msi::CAPABILITY_ID, msix::CAPABILITY_ID];
    let candidates = groups.into_iter().zip(&functions).filter(|(_, function)| {
        !function.is_bridge() && kinds.iter().any(|id| function.capability(*id).is_some())
    });
    let candidate = |(group, function): (usize, &Function)| {
        let line = line(host, &functions, function);
        Candidate { function: function.clone(), group, line }
    };
    candidates.map(candidate).collect()
}

/// Returns the INTx line of a function, which must be one of those that guests have.
fn line(host: &PciHost, functions: &[Function], function: &Function) -> Result<u32, &'static str> {
    let pin = pin(function).ok_or("it has no pin")?;
    let mut path = Vec::from([function.address]);
    let above = |bus| functions.iter().find(|bridge| bridge.secondary_bus() == Some(bus));
    while let Some(bridge) = path.last().and_then(|below| above(below.pci_bus())) {
        path.push(bridge.address);
    }
    let wire = host.route_intx(&path, pin).map_err(|_| "firmware does not route its pin")?;
    let intid = wire.intid.get();
    let is_known = layout::INTX.contains(&intid) && wire.trigger == Trigger::Level;
    is_known.then_some(intid).ok_or("its pin is not routed as on `virt`")
}

fn pin(function: &Function) -> Option<IntxPin> {
    const INTERRUPT_PIN: u16 = 0x3d;
    IntxPin::from_register(function.config.read8(INTERRUPT_PIN))
}

/// Keeps functions from using INTx lines that functions of several guests share. Otherwise, a guest
/// could keep a line of another guest asserted.
pub(crate) fn refuse_shared_lines(guests: &mut [Vec<Candidate>]) {
    for intid in layout::INTX {
        let asserts = |candidate: &Candidate| candidate.line == Ok(intid);
        if guests.iter().filter(|candidates| candidates.iter().any(asserts)).count() > 1 {
            let sharing = guests.iter_mut().flatten().filter(|candidate| asserts(candidate));
            sharing.for_each(|candidate| candidate.line = Err("guests share its interrupt line"));
        }
    }
}

/// Takes a free device of a guest's bus for a function. As on `virt`, the device and the function's
/// pin determine the line.
fn take_device(free: &mut Vec<u8>, candidate: &mut Candidate) -> u8 {
    let pin = pin(&candidate.function);
    let at = candidate.line.and_then(|line| {
        let leads =
            |device: &u8| pin.is_some_and(|pin| layout::intx(*device, pin.number()) == line);
        free.iter().position(leads).ok_or("the guest's bus has no more devices on its line")
    });
    if let (Err(reason), Some(_)) = (at, pin) {
        candidate.line = Err(reason);
        let (function, reason) = (candidate.function.address.get(), reason.into());
        println!("{}", Fact::from(HypervisorFact::NoIntx { function, reason }));
    }
    free.remove(at.unwrap_or(0))
}

/// A host bridge, with the functions behind it that are assigned to the guest.
pub(crate) struct Pci {
    /// ECAM window. The guest sees it at the same address.
    pub(crate) config: Range<u64>,
    /// Windows for I/O ports and for the functions' memory. The guest sees them at the same
    /// addresses, and may place its functions anywhere in those for memory.
    pub(crate) windows: Vec<PciWindow>,
    functions: Vec<Assigned>,
    /// The SMMU in front of the functions, if the guest owns it.
    pub(crate) smmu: Option<Arc<GuestSmmu>>,
}

impl Pci {
    /// Assigns these functions, which must have MSI or MSI-X, to the guest. The caller must confine
    /// their DMA.
    pub(crate) fn assign(
        host: &PciHost,
        candidates: Vec<Candidate>,
        (gic, smmu): (&Arc<Gic>, Option<Arc<GuestSmmu>>),
    ) -> Self {
        let ecam = pci::ecam(host).expect("the host bridge has an ECAM window");
        let router = Router::new(GsiSpace::default(), controller::inputs(gic, smmu.as_ref()));
        let router = router.expect("not enough memory for the routes");
        let router = Arc::new(router);
        let parent = |requester| irqchip::get().pci_parent(host, requester);
        let (mut words, mut free) = (0, (1..=MOST as u8).collect());
        let functions = candidates.into_iter().filter_map(|mut candidate| {
            let place = RequesterId::pci(0, take_device(&mut free, &mut candidate), 0);
            let has_line = candidate.line.is_ok();
            let function = candidate.function;
            let (guest, address) = (gic.guest, function.address.get());
            let parent = parent(function.sender())
                .expect("firmware routes the function's messages to an ITS");
            let owner = smmu.as_ref().map(|smmu| (gic.clone(), smmu.clone(), words));
            let assigned =
                Assigned::new(function, (place, has_line), (parent, owner), router.clone())?;
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
            smmu,
        }
    }

    /// Returns the functions' requester IDs in the guest, with those on the machine, which are
    /// their StreamIDs.
    pub(crate) fn streams(&self) -> impl Iterator<Item = [u32; 2]> {
        let functions = self.functions.iter();
        functions.map(|it| [it.place, it.requester()].map(RequesterId::get))
    }

    /// Returns the windows for the functions' memory, whose CPU and bus addresses are the same.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<u64>> {
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
    pub(crate) fn page(&self, page: u64) -> Option<u64> {
        let mut functions = self.functions.iter().filter(|_| self.is_memory(page));
        functions.find_map(|function| function.page(page))
    }

    /// Passes messages on that wait in memory.
    pub(crate) fn take_messages(&self) {
        self.functions.iter().for_each(Assigned::take_messages);
    }

    /// Stops the functions from sending messages and accessing memory.
    pub(crate) fn stop(&self) {
        self.functions.iter().for_each(Assigned::stop);
    }

    /// Reads from configuration space or from a window. Returns `None` for other addresses.
    pub(crate) fn read(&self, address: u64, width: AccessWidth) -> Option<u64> {
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

    /// Writes to configuration space or to a window. Returns `None` for other addresses. Calls
    /// `unmap` if the guest may have moved a function's memory.
    pub(crate) fn write(
        &self,
        address: u64,
        width: AccessWidth,
        value: u64,
        unmap: impl FnOnce(),
    ) -> Option<()> {
        if self.is_memory(address) {
            let mut functions = self.functions.iter();
            functions.find_map(|function| function.write_memory(address, width, value));
        } else if !self.config.contains(&address) {
            return self.is_window(address).then_some(());
        } else if let Some((function, offset)) = self.function_at(address) {
            function.write_config(offset, width, value, unmap);
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
