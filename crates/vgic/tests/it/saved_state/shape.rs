//! Tests that a state is refused by a machine of another shape, and that the error names the first
//! property that differs.

use super::board::{Board, config};
use super::refusals::refused_by;
use gic_arch::{Affinity, IntId};
use std::collections::HashSet;
use vgic::its::{Coherence, ErrorPolicy, PageSizes, TableLevels};
use vgic::saved_state::{Object, Problem, PropertyName, RestoreError};
use vgic::{RedistributorRegion, SecurityView, V2mConfig, VgicConfig};

const STRANGER: Affinity = Affinity::new(9, 9, 9, 9);
const V2M: u64 = 0x0b01_0000;
/// A second redistributor region, without redistributors.
const SPARE: u64 = 0x0b10_0000;

/// Returns a configuration in which each property can be changed by itself.
fn shaped(security: SecurityView) -> VgicConfig {
    let mut config = config()
        .with_security(security)
        .with_awake_redistributors(true)
        .with_mbi_alias(Some(0x0b00_0000))
        .with_v2m(vec![V2mConfig::new(V2M, 48, 8)]);
    if security == SecurityView::NonSecure {
        config.secure_interrupts = vec![IntId::new(33)];
    }
    config.redistributors.push(RedistributorRegion::new(SPARE, 1));
    config
}

/// Change of a configuration, and the property or register that a refusal names.
type Reshaped = (fn(&mut VgicConfig), &'static str);

#[test]
fn a_refused_restore_names_the_differing_property() {
    let cases: [Reshaped; 35] = [
        (|it| it.distributor = 0x0a00_0000, "Distributor"),
        (|it| it.cpus.reverse(), "Redistributor"),
        (|it| it.cpus[0].affinity = STRANGER, "Redistributor"),
        (|it| it.redistributors[0].base += 0x1_0000, "Redistributor"),
        (|it| it.redistributors[1].base += 0x1_0000, "RegionCount"),
        (|it| it.redistributors[1].count += 1, "RegionCount"),
        (|it| it.redistributors[1].stride *= 2, "RegionStride"),
        (|it| it.mbi_alias = None, "MbiAlias"),
        (|it| it.mbi_alias = Some(0x0b20_0000), "MbiAlias"),
        (|it| it.v2m[0].base += 0x1000, "V2mFirstSpi"),
        (|it| it.v2m.push(V2mConfig::new(0x0b20_0000, 64, 8)), "V2mFirstSpi"),
        (|it| it.v2m[0].first_spi += 1, "V2mFirstSpi"),
        (|it| it.v2m[0].count += 1, "V2mCount"),
        (|it| it.v2m[0].iidr = 1, "V2mIidr"),
        (|it| it.its[0].base = 0x0c00_0000, "DeviceTable"),
        (|it| it.its[0].device_table = TableLevels::Flat, "DeviceTable"),
        (|it| it.its[0].collection_table = Some(TableLevels::FlatOrTwo), "CollectionTable"),
        (|it| it.its[0].page_sizes = PageSizes::Any, "PageSize"),
        (|it| it.its[0].coherence = Coherence::NonCoherent, "ItsCoherence"),
        (|it| it.its[0].error_policy = ErrorPolicy::Stall, "ErrorPolicy"),
        (|it| it.coherence = Coherence::NonCoherent, "LpiCoherence"),
        (|it| it.level_ppis = true, "LevelPpis"),
        (|it| it.awake_redistributors = false, "AwakeRedistributors"),
        (|it| it.secure_interrupts.clear(), "SecureInterrupt"),
        (|it| it.spis = 96, "GICD_TYPER"),
        (|it| it.security = SecurityView::NonSecure, "GICD_TYPER"),
        (|it| it.one_of_n = false, "GICD_TYPER"),
        (|it| it.iidr = it.iidr.with_revision(3), "GICD_IIDR"),
        (|it| it.redistributor_invalidation = false, "GICR_CTLR"),
        (|it| it.can_clear_enable_lpis = false, "GICR_CTLR"),
        (|it| it.extended_ppis = 64, "GICR_TYPER"),
        (|it| it.cpus[0].processor_number = 9, "GICR_TYPER"),
        (|it| it.priority_bits = 7, "ICC_CTLR_EL1"),
        (|it| it.its[0].device_id_bits = 20, "GITS_TYPER"),
        (|it| it.its[0].iidr = gic_arch::Iidr::new(), "GITS_IIDR"),
    ];
    let mut named = HashSet::new();
    for (change, name) in cases {
        let is_secure = name == "SecureInterrupt";
        let config = shaped(if is_secure { SecurityView::NonSecure } else { SecurityView::Single });
        let mut other = config.clone();
        change(&mut other);
        let (mut source, mut destination) = (Board::new(config), Board::new(other.clone()));
        let refused = refused_by(&mut destination, &mut source, |_| {});
        assert_eq!(other.check_restorable(&source.save()), Err(refused.into()));
        match refused {
            RestoreError { object: Object::Property(property, _), .. } => {
                assert_eq!(format!("{property:?}"), name);
                named.insert(property);
            }
            RestoreError { problem: Problem::OtherMachine { register, .. }, .. } => {
                assert_eq!(register, name);
            }
            _ => panic!("{name}: {refused}"),
        }
    }
    let mut shape = Board::new(shaped(SecurityView::NonSecure)).save().shape;
    // All GICv2m frames encode SPIs alike.
    shape.retain(|property| property.name != PropertyName::V2mNaming);
    assert_eq!(shape.iter().find(|property| !named.contains(&property.name)), None);
}
