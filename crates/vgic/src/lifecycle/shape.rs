//! Shape of a machine, by which a saved state is compared with the machine that restores it.

use crate::config::{ItsConfig, PageSizes, V2mConfig, VgicConfig};
use crate::saved_state::{Object, Problem, Property, PropertyName, RestoreError};
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_collect};

/// Returns the shape of a machine, in ascending order. It contains each field of a configuration
/// that neither is a budget nor determines a register in the state.
pub(crate) fn of(config: &VgicConfig) -> Result<Vec<Property>, OutOfMemory> {
    use PropertyName as Name;
    let machine = [
        (Name::Distributor, 0, config.distributor),
        (Name::LpiCoherence, 0, config.coherence as u64),
        (Name::LevelPpis, 0, config.level_ppis.into()),
        (Name::AwakeRedistributors, 0, config.resets_awake().into()),
    ];
    let frames = config.cpus.iter().zip(config.redistributor_frames());
    let regions = config.redistributors.iter().filter(|region| region.count > 0);
    let secure = config.secure_interrupts.iter();
    let all = machine
        .into_iter()
        .chain(frames.map(|(cpu, of)| (Name::Redistributor, cpu.affinity.packed().into(), of.base)))
        .chain(regions.flat_map(|of| {
            [
                (Name::RegionCount, of.base, of.count.into()),
                (Name::RegionStride, of.base, of.stride),
            ]
        }))
        .chain(config.mbi_alias.map(|base| (Name::MbiAlias, 0, base)))
        .chain(config.v2m.iter().flat_map(of_v2m))
        .chain(config.its.iter().flat_map(of_its))
        .chain(secure.map(|intid| (Name::SecureInterrupt, intid.get().into(), 1)));
    let mut all = try_collect(all.map(|(name, of, value)| Property { name, of, value }))?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn of_v2m(frame: &V2mConfig) -> [(PropertyName, u64, u64); 4] {
    let encoding_by_intid = 0;
    [
        (PropertyName::V2mFirstSpi, frame.base, frame.first_spi.into()),
        (PropertyName::V2mCount, frame.base, frame.count.into()),
        (PropertyName::V2mIidr, frame.base, frame.iidr.into()),
        (PropertyName::V2mNaming, frame.base, encoding_by_intid),
    ]
}

fn of_its(its: &ItsConfig) -> [(PropertyName, u64, u64); 5] {
    let page_size = match its.page_sizes {
        PageSizes::Any => 0,
        PageSizes::Only(size) => 1 + u64::from(size.into_bits()),
    };
    let collections = its.collection_table.map_or(0, |levels| 1 + levels as u64);
    [
        (PropertyName::DeviceTable, its.base, its.device_table as u64),
        (PropertyName::CollectionTable, its.base, collections),
        (PropertyName::PageSize, its.base, page_size),
        (PropertyName::ItsCoherence, its.base, its.coherence as u64),
        (PropertyName::ErrorPolicy, its.base, its.error_policy as u64),
    ]
}

/// Checks that a machine has the saved shape. The error names the first property that differs.
pub(super) fn check(saved: &[Property], machine: &[Property]) -> Result<(), RestoreError> {
    if saved == machine {
        return Ok(());
    }
    let first = saved.iter().find(|one| !machine.contains(one));
    let first = first.or_else(|| machine.iter().find(|one| !saved.contains(one)));
    let Some(Property { name, of, .. }) = first.copied() else {
        return Err(Problem::Order.of(Object::Machine));
    };
    let value = |shape: &[Property]| {
        shape.iter().find(|it| (it.name, it.of) == (name, of)).map(|it| it.value)
    };
    let problem = match (value(saved), value(machine)) {
        (Some(saved), Some(machine)) => Problem::OtherMachine { register: "value", saved, machine },
        (None, _) => Problem::Absent,
        _ => Problem::Unknown,
    };
    Err(problem.of(Object::Property(name, of)))
}
