//! Tests for the validation of configurations, and for the order of redistributor frames.

use super::*;
use alloc::vec;

fn refused(change: impl FnOnce(&mut VgicConfig)) -> ConfigError {
    let mut config = VgicConfig::new(4);
    change(&mut config);
    config.validate().unwrap_err()
}

#[test]
fn the_default_configuration_is_valid_for_1_and_512_vcpus() {
    assert_eq!(VgicConfig::new(1).validate(), Ok(()));
    assert_eq!(VgicConfig::new(512).validate(), Ok(()));
}

#[test]
fn an_invalid_configuration_is_refused_with_its_reason() {
    let affinity = VgicConfig::new(2).cpus[1].affinity;
    assert_eq!(refused(|c| c.cpus.clear()), ConfigError::CpuCount(0));
    assert_eq!(
        refused(|c| c.cpus[0].affinity = affinity),
        ConfigError::DuplicateAffinity(affinity)
    );
    assert_eq!(
        refused(|c| c.cpus[0].processor_number = 3),
        ConfigError::DuplicateProcessorNumber(3)
    );
    assert_eq!(
        refused(|c| c.redistributors[0].count = 3),
        ConfigError::TooFewRedistributors { cpus: 4, room: 3 }
    );
    assert_eq!(refused(|c| c.distributor += 0x1000), ConfigError::Misaligned(0x0800_1000));
    assert_eq!(refused(|c| c.redistributors[0].stride = 0x1_0000), ConfigError::Stride(0x1_0000));
    assert_eq!(
        refused(|c| c.distributor = 0xf_ffff_ffff_0000 + 0x1_0000),
        ConfigError::AddressSpace(0x10_0000_0000_0000)
    );
    assert_eq!(
        refused(|c| c.distributor = 0x080c_0000),
        ConfigError::Overlap { first: 0x080a_0000, second: 0x080c_0000 }
    );
    assert_eq!(refused(|c| c.spis = 100), ConfigError::SpiCount(100));
    assert_eq!(refused(|c| c.extended_spis = 1056), ConfigError::ExtendedSpiCount(1056));
    assert_eq!(refused(|c| c.extended_ppis = 16), ConfigError::ExtendedPpiCount(16));
    assert_eq!(refused(|c| c.priority_bits = 3), ConfigError::PriorityBits(3));
    assert_eq!(refused(|c| c.lpi_id_bits = Some(13)), ConfigError::LpiIdBits(13));
    assert_eq!(refused(|c| c.lpi_work_per_access = 0), ConfigError::NoLpiWork);
    assert_eq!(refused(|c| c.direct_lpi = true), ConfigError::DirectLpiWithoutLpis);
    assert_eq!(
        refused(|c| c.secure_interrupts = vec![IntId::new(8)]),
        ConfigError::SecureInterrupt(IntId::new(8))
    );
}

#[test]
fn collection_id_bits_out_of_range_are_refused() {
    let its = |bits, held_collections, collection_table| {
        let collection_id_bits = Some(bits);
        ItsConfig::new(0)
            .with_held_collections(held_collections)
            .with_collection_table(collection_table)
            .with_collection_id_bits(collection_id_bits)
            .validate()
    };
    let table = Some(TableLevels::Flat);
    for bits in [1, 2, 16] {
        assert_eq!(its(bits, 2, table), Ok(()));
    }
    for bits in [0, 17, 255] {
        assert_eq!(its(bits, 0, table), Err(ItsConfigError::CollectionIdBits(bits)));
    }
    let beside = |bits, held| Err(ItsConfigError::CollectionIdBitsBesideHeld { bits, held });
    assert_eq!(its(1, 3, table), beside(1, 3));
    assert_eq!(its(8, 3, None), beside(8, 3));
}

#[test]
fn direct_lpis_exclude_an_its_and_mbis() {
    let direct = |change: fn(&mut VgicConfig)| {
        let mut config = VgicConfig::new(1).with_direct_lpi(true).with_lpi_id_bits(Some(14));
        change(&mut config);
        config.validate()
    };
    assert_eq!(direct(|c| c.v2m = vec![V2mConfig::new(0x0802_0000, 64, 32)]), Ok(()));
    assert_eq!(
        direct(|c| c.its = vec![ItsConfig::new(0x0808_0000)]),
        Err(ConfigError::DirectLpiBesideIts { its: 0x0808_0000 })
    );
    assert_eq!(direct(|c| c.message_based_spis = true), Err(ConfigError::DirectLpiBesideMbi));
}

#[test]
fn an_its_can_be_combined_with_mbis_and_v2m_frames() {
    let config = VgicConfig::new(1)
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(0x0808_0000)])
        .with_message_based_spis(true)
        .with_v2m(vec![V2mConfig::new(0x0802_0000, 64, 32)]);
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn redistributors_fill_regions_in_order() {
    let mut config = VgicConfig::new(3);
    config.redistributors = vec![
        RedistributorRegion::new(0x10_0000, 2),
        RedistributorRegion::new(0x80_0000, 5).with_stride(0x4_0000),
    ];
    let frames: Vec<_> =
        config.redistributor_frames().map(|frame| (frame.base, frame.last)).collect();
    assert_eq!(frames, [(0x10_0000, false), (0x12_0000, true), (0x80_0000, true)]);
}

/// Each case: regions, vCPUs, and `GICR_TYPER.Last` of each vCPU's redistributor.
#[test]
fn typer_last_marks_the_end_of_each_contiguous_run() {
    let region = RedistributorRegion::new;
    let cases: [(_, &[u8]); 7] = [
        (vec![region(0x10_0000, 2), region(0x14_0000, 2), region(0x20_0000, 1)], &[0, 0, 0, 1, 1]),
        // The order of the regions, which numbers the redistributors, is irrelevant.
        (vec![region(0x14_0000, 2), region(0x10_0000, 2)], &[0, 1, 0, 0]),
        (vec![region(0x12_0000, 1), region(0x14_0000, 1), region(0x10_0000, 1)], &[0, 1, 0]),
        // The next region has no redistributors, or the first one has room for another.
        (vec![region(0x10_0000, 2), region(0x14_0000, 2)], &[0, 1]),
        (vec![region(0x10_0000, 2), region(0x14_0000, 4)], &[0, 0, 0, 1]),
        (vec![region(0x10_0000, 3), region(0x16_0000, 2)], &[0, 1]),
        // A walk with one stride would miss a redistributor of the other region.
        (
            vec![
                region(0x10_0000, 1).with_stride(0x4_0000),
                region(0x14_0000, 1).with_stride(0x4_0000),
                region(0x18_0000, 2),
            ],
            &[0, 1, 0, 1],
        ),
    ];
    for (regions, expected) in cases {
        let mut config = VgicConfig::new(expected.len().try_into().unwrap());
        config.redistributors = regions;
        let last = config.redistributor_frames().map(|frame| u8::from(frame.last));
        assert_eq!(last.collect::<Vec<_>>(), expected, "{:?}", config.redistributors);
    }
}
