//! Reads GIC nodes (bindings `arm,gic.yaml`, `arm,gic-v3.yaml`).

use super::address::{cells, required_regions};
use super::interrupt_tree::{EXTENDED, INTERRUPTS};
use super::tree::NodeRef;
use crate::controller::Coherence;
use crate::finding::{FindingList, Rule};
use crate::gic::{BROKEN_SAVE_RESTORE, Gic, GicVersion, NO_MAINTENANCE};
use crate::origin::Fact;
use crate::region::Region;
use alloc::format;

/// Compatible strings for GICv3 and later.
const V3: &[&str] = &["arm,gic-v3"];

/// Compatible strings for GICv1 and GICv2.
const V2: &[&str] = &[
    "arm,arm11mp-gic",
    "arm,arm1176jzf-devchip-gic",
    "arm,cortex-a15-gic",
    "arm,cortex-a5-gic",
    "arm,cortex-a7-gic",
    "arm,cortex-a9-gic",
    "arm,eb11mp-gic",
    "arm,gic-400",
    "arm,pl390",
    "arm,tc11mp-gic",
    "brcm,brahma-b15-gic",
    "qcom,msm-8660-qgic",
    "qcom,msm-qgic2",
];

/// Size of a register frame. The distance between redistributors must be a multiple of this size.
const FRAME_BYTES: u64 = 0x1_0000;

/// Returns the version that a GIC node states; `None` for other nodes.
pub(super) fn version(node: NodeRef<'_, '_>) -> Option<GicVersion> {
    if node.is_compatible(V3) {
        Some(GicVersion::V3)
    } else if node.is_compatible(V2) {
        Some(GicVersion::V2)
    } else {
        None
    }
}

/// Reads the coherence of `node`'s table accesses with the CPUs' caches.
pub(super) fn coherence(node: NodeRef<'_, '_>) -> Fact<Coherence> {
    let coherence =
        if node.has("dma-noncoherent") { Coherence::NonCoherent } else { Coherence::ByRegister };
    Fact::new(coherence, node.origin("dma-noncoherent"))
}

pub(super) fn read(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Gic> {
    const MISSING: &str = "the distributor's registers are not stated";
    let version = version(node)?;
    let registers = required_regions(node, MISSING, findings);
    let distributor = registers.first().cloned().flatten()?;
    let after = registers.get(1..).unwrap_or_default();
    let count = match version {
        GicVersion::V2 => 0,
        _ => redistributor_regions(node, after.len(), findings),
    };
    Some(Gic {
        id: node.id(),
        compatible: node.compatible(),
        version: Fact::new(version, node.origin("compatible")),
        status: node.status(),
        distributor,
        redistributors: after.iter().take(count).flatten().cloned().collect(),
        redistributor_stride: stride(node, findings),
        cpu_interface: after
            .get(count)
            .cloned()
            .flatten()
            .filter(|region: &Fact<Region>| region.size() > 0),
        coherence: coherence(node),
        broken_save_restore: node.has(BROKEN_SAVE_RESTORE),
    })
}

/// Reports a GICv3 without a maintenance interrupt.
pub(super) fn check_maintenance(node: NodeRef<'_, '_>, findings: &mut FindingList) {
    let is_v3 = version(node) == Some(GicVersion::V3) && node.status().is_enabled();
    if is_v3 && !node.has(INTERRUPTS) && !node.has(EXTENDED) {
        let place = node.origin(INTERRUPTS);
        findings.add(Rule::MissingMaintenanceInterrupt, place, NO_MAINTENANCE);
    }
}

/// Returns how many of the `available` regions after the distributor's region contain
/// redistributors.
fn redistributor_regions(
    node: NodeRef<'_, '_>,
    available: usize,
    findings: &mut FindingList,
) -> usize {
    const COUNT: &str = "#redistributor-regions";
    let stated = match node.property(COUNT) {
        None => 1,
        Some(_) => node.number(COUNT).unwrap_or_default(),
    };
    let count = usize::try_from(stated).unwrap_or(usize::MAX);
    if count == 0 || count > available {
        let message =
            format!("{stated} redistributor regions, but {available} follow the distributor");
        findings.add(Rule::RedistributorRegions, node.origin(COUNT), message);
    }
    count.min(available)
}

fn stride(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Fact<u64>> {
    const STRIDE: &str = "redistributor-stride";
    let value = node.property(STRIDE)?;
    let Some(&[high, low]) = cells(value).as_deref() else {
        let message = format!("{} bytes are not a 64-bit number", value.len());
        findings.add(Rule::MalformedProperty, node.origin(STRIDE), message);
        return None;
    };
    let stride = (u64::from(high) << 32) | u64::from(low);
    if stride == 0 || stride % FRAME_BYTES != 0 {
        let message = format!("{stride:#x} bytes cannot be the distance between redistributors");
        findings.add(Rule::RedistributorStride, node.origin(STRIDE), message);
        return None;
    }
    Some(Fact::new(stride, node.origin(STRIDE)))
}
