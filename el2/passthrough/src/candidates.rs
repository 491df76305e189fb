//! Finds the functions that may be assigned to guests, and deals them out.

use crate::{dma, function};
use alloc::string::ToString;
use alloc::vec::Vec;
use doorbell_facts::{Fact, HypervisorFact};
use el2_vm::{Ram, irqchip};
use gic_firmware::{IntxPin, PciHost};
use image_rt::pci::{self, Function};
use image_rt::println;
use irq_domain::pci::{enable_acs, isolation_groups};
use msi_types::Trigger;
use msi_types::pci::{msi, msix};

/// Number of functions that fit on a guest's bus. Device 0 is left out, because its DeviceID is
/// that of the messages that vCPUs send.
pub(crate) const MOST: usize = 31;

/// A function that may be assigned to a guest.
#[derive(Clone)]
pub struct Candidate {
    pub(crate) function: Function,
    /// Functions that have the same number must be assigned to the same guest.
    group: usize,
    /// The function's INTx line, or the reason why it must not assert INTx.
    pub(crate) line: Result<u32, &'static str>,
}

impl Candidate {
    /// Returns the INTID of the function's INTx line.
    pub fn line(&self) -> Option<u32> {
        self.line.ok()
    }
}

/// Returns the functions that may be assigned to guests: those whose DMA an SMMU confines, or all
/// if the guests are trusted. The others are disabled, so that a function that reaches them without
/// passing the SMMU finds nothing. Bridges and functions without MSI and MSI-X stay with the
/// hypervisor. `lines` are the INTIDs of the guests' INTx lines. No function asserts INTx.
///
/// # Panics
/// Panics if memory is exhausted.
pub fn candidates(host: &'static PciHost, lines: &[u32], are_trusted: bool) -> Vec<Candidate> {
    if !are_trusted {
        // Enable the SMMU first, because enumeration lets functions access memory.
        dma::bring_up(host);
    }
    let functions = pci::enumerate(irqchip::get().description(), host);
    for function in &functions {
        enable_acs(&**function.config());
        function::set_intx(function, false);
    }
    let isolation: Vec<_> = functions.iter().map(Function::isolation).collect();
    let groups = isolation_groups(&isolation).expect("not enough memory for the groups");
    let kinds = [msi::CAPABILITY_ID, msix::CAPABILITY_ID];
    let candidates = groups.into_iter().zip(&functions).filter(|(_, function)| {
        !function.is_bridge() && kinds.iter().any(|id| pci::capability(function, *id).is_some())
    });
    let confined = candidates.filter(|(_, function)| match dma::stream(function) {
        Err(reason) if !are_trusted => {
            withhold(function, &reason.to_string());
            false
        }
        _ => true,
    });
    let candidate = |(group, function): (usize, &Function)| {
        let line = line(host, &functions, function);
        let line = line.and_then(|it| {
            lines.contains(&it).then_some(it).ok_or("guests do not have its interrupt line")
        });
        Candidate { function: function.clone(), group, line }
    };
    confined.map(candidate).collect()
}

/// Returns the INTx line of a function.
fn line(host: &PciHost, functions: &[Function], function: &Function) -> Result<u32, &'static str> {
    let pin = pin(function).ok_or("it has no pin")?;
    let mut path = Vec::from([function.requester().function]);
    let above = |bus| functions.iter().find(|bridge| bridge.secondary_bus() == Some(bus));
    while let Some(bridge) = path.last().and_then(|below| above(below.pci_bus())) {
        path.push(bridge.requester().function);
    }
    let wire = host.route_intx(&path, pin).map_err(|_| "firmware does not route its pin")?;
    let is_level = wire.trigger == Trigger::Level;
    is_level.then_some(wire.intid.get()).ok_or("its interrupt is not level-sensitive")
}

pub(crate) fn pin(function: &Function) -> Option<IntxPin> {
    const INTERRUPT_PIN: u16 = 0x3d;
    IntxPin::from_register(function.config().read8(INTERRUPT_PIN))
}

/// Stops a function that is not assigned to a guest from decoding accesses, accessing memory,
/// sending messages and asserting INTx.
fn withhold(function: &Function, reason: &str) {
    const COMMAND: u16 = 0x04;
    const INTX_DISABLE: u16 = 1 << 10;
    function.config().write16(COMMAND, INTX_DISABLE);
    let (function, reason) = (function.requester().function.get(), reason.to_string().into());
    println!("{}", Fact::from(HypervisorFact::Withheld { function, reason }));
}

/// Returns each guest's functions. Groups are dealt out round-robin.
pub fn deal(candidates: &[Candidate], guests: usize) -> Vec<Vec<Candidate>> {
    let mut groups: Vec<_> = candidates.iter().map(|candidate| candidate.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let owner = |group: &usize| groups.binary_search(group).map(|place| place % guests);
    let dealt = (0..guests).map(|guest| {
        let mine = candidates.iter().filter(|candidate| owner(&candidate.group) == Ok(guest));
        let mut mine: Vec<_> = mine.cloned().collect();
        for candidate in mine.split_off(mine.len().min(MOST)) {
            withhold(&candidate.function, "its guest's bus is full");
        }
        mine
    });
    let mut dealt: Vec<_> = dealt.collect();
    refuse_shared_lines(&mut dealt);
    dealt
}

/// Keeps functions from using INTx lines that functions of several guests share. Otherwise, a guest
/// could keep a line of another guest asserted.
fn refuse_shared_lines(guests: &mut [Vec<Candidate>]) {
    let lines: Vec<_> = guests.iter().flatten().filter_map(Candidate::line).collect();
    for line in lines {
        let asserts = |candidate: &Candidate| candidate.line == Ok(line);
        if guests.iter().filter(|candidates| candidates.iter().any(asserts)).count() > 1 {
            let sharing = guests.iter_mut().flatten().filter(|candidate| asserts(candidate));
            sharing.for_each(|candidate| candidate.line = Err("guests share its interrupt line"));
        }
    }
}

/// Assigns the address space of a guest with this number and this memory to its functions. If no
/// SMMU translates, the guest is trusted.
///
/// # Panics
/// Panics if memory is exhausted, or if the SMMU does not respond.
pub fn confine(guest: usize, ram: &Ram, candidates: &[Candidate]) {
    dma::confine(guest, ram, candidates.iter().map(|candidate| &candidate.function));
}
