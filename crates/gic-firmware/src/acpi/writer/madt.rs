//! Encodes CPUs, the GIC and its MSI controllers as MADT structures.

use super::numbering::{Structure, WriteError, WriteErrorKind, number, numbered, numbers};
use crate::acpi::fields::{gicc, gicd, gicr, its, msi_frame};
use crate::controller::{Coherence, Controller, ControllerKind, Gic, GicVersion};
use crate::description::{CpuNode, Description};
use crate::finding::{Fact, Region};
use alloc::vec::Vec;

pub(super) fn body(
    description: &Description,
    gic: &Gic,
    extensions: Extensions,
) -> Result<Vec<u8>, WriteError> {
    if !gic.status.is_enabled() {
        return Err(WriteErrorKind::NoGic.of(&gic.id));
    }
    let mut others = description.secondary_gics.iter().map(|secondary| &secondary.gic);
    if let Some(other) = others.find(|gic| gic.status.is_enabled()) {
        return Err(WriteErrorKind::SeveralGics.of(&other.id));
    }
    if gic.redistributor_stride.is_some() {
        return Err(WriteErrorKind::Registers.of(&gic.id));
    }
    // Zeroes for the local interrupt controller address and the flags, which Arm does not use.
    let mut body = Vec::from([0; 8]);
    let uids = numbers(description.cpus.iter().map(|cpu| &cpu.id), "MADT/GICC@");
    for (ordinal, (cpu, uid)) in (0u32..).zip(description.cpus.iter().zip(uids)) {
        body.extend(gicc(cpu, ordinal, uid, gic.cpu_interface.as_ref()));
    }
    body.extend(gicd(gic));
    let non_coherent = gic.coherence.value == Coherence::NonCoherent;
    for region in &gic.redistributors {
        let length =
            u32::try_from(region.size()).map_err(|_| WriteErrorKind::Registers.of(&gic.id))?;
        body.extend(gicr(region.value, length, non_coherent));
    }
    for (_, controller, id) in numbered(description, &ControllerKind::Its, "MADT/ITS@") {
        body.extend(its(controller, id)?);
    }
    for (_, controller, id) in numbered(description, &ControllerKind::V2m, "MADT/MSI-frame@") {
        body.extend(frame(controller, id)?);
    }
    match description
        .controllers
        .iter()
        .find(|one| one.status.is_enabled() && !has_structure(one, extensions))
    {
        Some(other) => Err(WriteErrorKind::Controller.of(&other.id)),
        None => Ok(body),
    }
}

const fn has_structure(controller: &Controller, extensions: Extensions) -> bool {
    match controller.kind {
        ControllerKind::Its | ControllerKind::V2m => true,
        ControllerKind::DirectLpi => extensions.draft_redistributor_group,
        _ => false,
    }
}

fn gicc(cpu: &CpuNode, ordinal: u32, uid: u32, interface: Option<&Fact<Region>>) -> Vec<u8> {
    Structure::of(gicc::LAYOUT, 0)
        .set(gicc::INTERFACE, ordinal)
        .set(gicc::UID, uid)
        .set(gicc::FLAGS, cpu.status.is_enabled())
        .set(gicc::BASE, interface.map_or(0, |region| region.base()))
        .set(gicc::MPIDR, cpu.affinity.mpidr())
        .0
}

fn gicd(gic: &Gic) -> Vec<u8> {
    let version = match gic.version.value {
        GicVersion::V2 => 2u8,
        GicVersion::V3 => 3,
        GicVersion::V4 => 4,
    };
    let id = number(&gic.id, "MADT/GICD@").unwrap_or_default();
    Structure::of(gicd::LAYOUT, 0)
        .set(gicd::ID, id)
        .set(gicd::BASE, gic.distributor.base())
        .set(gicd::VERSION, version)
        .0
}

fn gicr(region: Region, length: u32, non_coherent: bool) -> Vec<u8> {
    Structure::of(gicr::LAYOUT, 0)
        .set(gicr::FLAGS, non_coherent)
        .set(gicr::BASE, region.base())
        .set(gicr::LENGTH, length)
        .0
}

fn its(its: &Controller, id: u32) -> Result<Vec<u8>, WriteError> {
    let registers = its.registers.as_ref().filter(|_| its.pre_its.is_none());
    let registers = registers.ok_or_else(|| WriteErrorKind::Registers.of(&its.id))?;
    let non_coherent = its.coherence.value == Coherence::NonCoherent;
    Ok(Structure::of(its::LAYOUT, 0)
        .set(its::FLAGS, non_coherent)
        .set(its::ID, id)
        .set(its::BASE, registers.base())
        .0)
}

fn frame(frame: &Controller, id: u32) -> Result<Vec<u8>, WriteError> {
    let fail = || WriteErrorKind::Registers.of(&frame.id);
    let registers = frame.registers.as_ref().ok_or_else(fail)?;
    let (flags, first, count) = match frame.ranges.as_slice() {
        [] => (0u32, 0, 0),
        [range] => {
            let first = u16::try_from(range.first().get()).map_err(|_| fail())?;
            (1, first, u16::try_from(range.count()).map_err(|_| fail())?)
        }
        _ => return Err(fail()),
    };
    Ok(Structure::of(msi_frame::LAYOUT, 0)
        .set(msi_frame::ID, id)
        .set(msi_frame::BASE, registers.base())
        .set(msi_frame::FLAGS, flags)
        .set(msi_frame::SPI_COUNT, count)
        .set(msi_frame::SPI_BASE, first)
        .0)
}

/// Additions to the specifications that a caller explicitly requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Extensions {
    /// `true` to write direct LPIs as this project's **draft** of an IORT node
    /// (`docs/specs/iort-redistributor-group.md`). No operating system supports this node.
    pub draft_redistributor_group: bool,
}

impl Extensions {
    /// Requests the draft of an IORT node for direct LPIs, and no other extension.
    pub const DRAFT_REDISTRIBUTOR_GROUP: Self = Self { draft_redistributor_group: true };
}
