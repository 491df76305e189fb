//! Configures the model's message-based SPIs and GICv2m frames, and counts the SPIs that they need.

use super::controller_choice::is_virtual_bus;
use super::{controllers, itses};
use gic_arch::{IntId, IntIdClass};
use gic_firmware::{ControllerKind, Description, IntIdSpan};
use vgic::{V2mConfig, VgicConfig};

/// Number of SPIs on machines without message-signaled SPIs.
const FEW: u32 = 256;
/// Number of SPIs on machines with message-signaled SPIs: INTIDs 32 to 991.
const MANY: u32 = 960;
/// Maximum number of SPIs, which have INTIDs up to 1019.
const ALL: u32 = 988;
/// Number of SPIs in a frame whose range firmware does not state. In that case, drivers read the
/// range from the frame's register, so the machine can choose it.
const FRAME: u32 = 64;

/// Configures all GIC features that firmware describes, except LPIs.
pub(super) fn configure(description: &Description, config: &mut VgicConfig) {
    let spans: Vec<_> = spans(description).collect();
    let messages = controllers::of_kind(description, ControllerKind::Mbi).next();
    let frames = controllers::of_kind(description, ControllerKind::V2m).next();
    config.spis = match spans.iter().filter_map(|span| plain_end(*span)).max() {
        Some(end) if end > IntId::SPI_BASE + MANY => ALL,
        _ if controllers::usable(description).any(|(_, bus)| is_virtual_bus(&bus.kind)) => ALL,
        None if messages.is_none() && frames.is_none() => FEW,
        _ => MANY,
    };
    if spans.iter().any(|span| span.first().class() == IntIdClass::ExtendedSpi) {
        config.extended_spis = IntId::EXTENDED_SPI_COUNT;
    }
    if let Some((_, messages)) = messages {
        config.message_based_spis = true;
        let base = messages.registers.as_ref().map(|registers| registers.base());
        config.mbi_alias = base.filter(|base| *base != config.distributor);
    }
    config.v2m = frame_configs(description, &spans);
}

fn frame_configs(description: &Description, spans: &[IntIdSpan]) -> Vec<V2mConfig> {
    let mut taken: Vec<_> =
        spans.iter().filter_map(|span| Some((span.first().get(), plain_end(*span)?))).collect();
    let mut frames = Vec::new();
    for (_, frame) in controllers::of_kind(description, ControllerKind::V2m) {
        let Some(registers) = &frame.registers else { continue };
        let stated = frame.ranges.first().map(|range| (range.first().get(), range.count()));
        let Some((first, count)) = stated.or_else(|| free(&taken)) else { continue };
        taken.push((first, first.saturating_add(count)));
        frames.push(V2mConfig::new(registers.base(), first, count));
    }
    frames
}

/// Returns a range of unused SPIs with the highest possible INTIDs, aligned so that drivers can
/// allocate them in groups.
fn free(taken: &[(u32, u32)]) -> Option<(u32, u32)> {
    let mut blocks = (1..=MANY / FRAME).rev().map(|block| block * FRAME - IntId::SPI_BASE);
    let first = blocks.find(|first| {
        *first >= IntId::SPI_BASE
            && taken.iter().all(|(start, end)| *end <= *first || first + FRAME <= *start)
    })?;
    Some((first, FRAME))
}

/// Returns the SPI ranges stated by firmware.
fn spans(description: &Description) -> impl Iterator<Item = IntIdSpan> {
    let messages = controllers::of_kind(description, ControllerKind::Mbi);
    let frames = controllers::of_kind(description, ControllerKind::V2m);
    messages
        .chain(frames)
        .flat_map(|(_, controller)| controller.ranges.iter().map(|range| range.value))
        .chain(lines(description))
}

/// Returns the lines of controllers inside host bridges.
fn lines(description: &Description) -> impl Iterator<Item = IntIdSpan> {
    let lines = controllers::usable(description).flat_map(|(_, controller)| &controller.lines);
    lines.filter_map(|line| IntIdSpan::new(line.intid, 1))
}

/// Returns the INTID that follows a range of ordinary SPIs, or `None` for extended SPIs.
fn plain_end(span: IntIdSpan) -> Option<u32> {
    let last = span.last().filter(|_| span.first().class() == IntIdClass::Spi)?;
    last.get().checked_add(1)
}

/// Returns `true` if a controller delivers LPIs.
pub(super) fn has_lpis(description: &Description) -> bool {
    let direct = controllers::of_kind(description, ControllerKind::DirectLpi).next();
    itses(description).next().is_some() || direct.is_some()
}
