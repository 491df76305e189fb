//! Checks that messages pass the `dma-ranges` between a requester and the root (Devicetree
//! Specification §2.3.9).
//!
//! As in Linux 7.2, the way begins at a PCI host itself, because bridges below it have no say
//! (`pci_dma_configure`), and at the parent of another device (`of_dma_configure_id`). Each bus
//! translates (`of_translate_dma_address`); a bus without the property does not.

use super::address::{DMA_RANGES, to_memory};
use super::pci_hosts::is_pci_host;
use super::tree::{NodeRef, Tree};
use super::windows;
use crate::description::Description;
use crate::finding::{FindingList, Rule};
use crate::lint::msi_maps::{doorbells, untranslated};
use crate::requester::{PlatformDevice, Role};
use crate::route::RouteSpan;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Reports requesters whose messages some `dma-ranges` does not let through to a doorbell.
pub(super) fn check(tree: &Tree<'_>, description: &Description, findings: &mut FindingList) {
    let hosts = description.hosts.iter().filter(|host| host.status.is_enabled());
    let hosts = hosts.map(|host| (&host.id, untranslated(description, host).collect()));
    let devices = description.devices.iter().filter(|device| writes_doorbells(description, device));
    let devices = devices.map(|device| (&device.id, description.device_spans(device)));
    let spans: BTreeMap<_, Vec<_>> = hosts.chain(devices).collect();
    for node in tree.nodes() {
        let Some(bus) = first_limit(node) else { continue };
        let spans = spans.get(&node.id()).into_iter().flatten();
        let obstacle = spans.copied().find_map(|span| obstacle(node, description, span));
        if let Some(message) = obstacle {
            findings.add(Rule::DoorbellOutsideDmaRanges, bus.origin(DMA_RANGES), message);
        }
    }
}

/// Returns `true` if the device itself writes messages, and no IOMMU translates them. Operating
/// systems ignore a disabled IOMMU.
fn writes_doorbells(description: &Description, device: &PlatformDevice) -> bool {
    let is_ignored = |iommu| description.iommu(iommu).is_none_or(|it| !it.status.is_enabled());
    device.role == Role::Device
        && device.status.is_enabled()
        && device.iommus.iter().all(|reference| is_ignored(reference.iommu))
}

/// Returns the first bus that translates or limits what `node` writes. Interconnects that stand for
/// a parent (`dma-mem`) are not followed.
fn first_limit<'t, 'a>(node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
    let skipped = usize::from(!is_pci_host(node));
    let mut way = node.upwards().skip(skipped).filter(|bus| bus.parent().is_some());
    let bus = way.find(|bus| bus.property(DMA_RANGES).is_some_and(|ranges| !ranges.is_empty()))?;
    let leaves = |bus: NodeRef<'_, '_>| bus.strings("interconnect-names").any(|it| it == "dma-mem");
    (!node.upwards().any(leaves)).then_some(bus)
}

/// Returns the reason why messages of `span` do not reach a doorbell. Returns `None` if the tree
/// has too many ranges to find out.
fn obstacle(node: NodeRef<'_, '_>, description: &Description, span: RouteSpan) -> Option<String> {
    let to = description.controller(span.controller)?;
    for doorbell in doorbells(description, span) {
        let reached =
            windows::dma_address(node, doorbell).and_then(|address| to_memory(node, address));
        node.spend()?;
        // The doorbell of a MIP is a PCI address, which leads to the registers.
        let is_right = |cpu: u64| match (&to.message, &to.registers) {
            (Some(_), Some(registers)) => registers.contains(cpu),
            _ => cpu == doorbell,
        };
        match reached {
            Ok(cpu) if is_right(cpu) => {}
            Ok(cpu) => {
                return Some(format!(
                    "{doorbell:#x}, the doorbell of {}, leads to {cpu:#x}",
                    to.id
                ));
            }
            Err(reason) => return Some(format!("{reason}, the doorbell of {}", to.id)),
        }
    }
    None
}
