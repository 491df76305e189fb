use super::access::Width;
use super::*;
use gic_arch::IntId;
use vgic::VgicConfig;
use vgic::its::{ErrorPolicy, TableLevels};

const LIMITS: Limits = Limits { cases: 1000, deadline: None, seed: 7 };

#[test]
fn a_model_never_differs_from_itself() {
    for world in World::ALL {
        let (mut one, mut other) =
            (Model::new(world, Watch::All).unwrap(), Model::new(world, Watch::All).unwrap());
        for finding in reset_values(&mut one, &mut other).unwrap() {
            assert_eq!(finding.mismatch, None);
        }
        for family in world.families() {
            let (of, limits) =
                (Comparison { family: *family, world }, Limits { cases: 100, ..LIMITS });
            let finding = compare(of, limits, &mut one, &mut other).unwrap();
            assert_eq!(finding, Finding { agreed: 100, mismatch: None });
        }
    }
}

/// A world, the family whose cases find a change of its model, and the change.
type Change = (World, Family, fn(&mut VgicConfig));

const CHANGES: [Change; 8] = [
    (World::Stopped, Family::Wired, |config| config.priority_bits = 5),
    (World::Stopped, Family::Wired, |config| config.message_based_spis = true),
    (World::Stopped, Family::Commands, |config| {
        config.its[0].collection_table = Some(TableLevels::Flat);
    }),
    (World::Stopped, Family::Commands, |config| config.its[0].error_policy = ErrorPolicy::Stall),
    (World::Running, Family::Delivery, |config| config.priority_bits = 4),
    (World::NonSecure, Family::Wired, |config| {
        config.secure_interrupts.retain(|intid| intid.get() != 42);
    }),
    (World::NonSecure, Family::Wired, |config| {
        config.secure_interrupts.retain(|intid| intid.get() != 15);
    }),
    (World::NonSecure, Family::Wired, |config| config.secure_interrupts.push(IntId::new(27))),
];

fn changed((world, _, change): Change) -> Model {
    let mut config = world.model(CPUS);
    change(&mut config);
    Model::of(world, config).unwrap()
}

#[test]
fn a_comparison_finds_changes_of_the_model() {
    for (number, change) in CHANGES.into_iter().enumerate() {
        let (world, family, _) = change;
        let mut right = Model::new(world, Watch::All).unwrap();
        let of = Comparison { family, world };
        let found = compare(of, LIMITS, &mut changed(change), &mut right).unwrap();
        assert!(found.mismatch.is_some(), "change {number}");
    }
}

#[test]
fn interrupts_of_equal_priority_may_be_acknowledged_in_any_order() {
    let acknowledged = |pairs: &[(u32, u32)]| -> Vec<Acknowledged> {
        pairs
            .iter()
            .map(|(priority, intid)| Acknowledged { priority: *priority, intid: *intid })
            .collect()
    };
    let told = |pairs: &[(u32, u32)]| acknowledge::tell(&acknowledged(pairs));
    assert_eq!(told(&[(0x60, 9), (0x60, 7), (0xa0, 3)]), "acknowledged 0x60:[7, 9] 0xa0:[3]");
    assert_eq!(told(&[(0x60, 7), (0x60, 9), (0xa0, 3)]), told(&[(0x60, 9), (0x60, 7), (0xa0, 3)]));
    assert_ne!(told(&[(0xa0, 3), (0x60, 7)]), told(&[(0x60, 7), (0xa0, 3)]));
}

#[test]
fn a_mismatch_is_reduced_to_a_minimal_script() {
    // The first change gives the model fewer priority bits.
    let (world, family, _) = CHANGES[0];
    let mut right = Model::new(world, Watch::All).unwrap();
    let of = Comparison { family, world };
    let found = compare(of, LIMITS, &mut changed(CHANGES[0]), &mut right).unwrap();
    let found = found.mismatch.unwrap();
    // The script contains the two writes that start every case, one priority write, and the read
    // that shows the difference.
    assert_eq!(found.script.len(), 4, "{found}");
}

#[test]
fn a_permitted_difference_ignores_only_its_own_bits() {
    let values = |ours, theirs| difference::Values { ours, theirs };
    let agree = |at, width, values| difference::agree(at, width, difference::Moment::Later, values);
    // GICD_TYPER.RSS (bit 26) may differ, but the bit next to it must not.
    assert!(agree(0x0800_0004, Width::Word, values(1 << 26, 0)));
    assert!(!agree(0x0800_0004, Width::Word, values(1 << 25, 0)));
    // The CIL field in the upper half of GITS_TYPER may differ. GITS_IIDR, the register before it,
    // must not differ.
    assert!(agree(0x0808_000c, Width::Word, values(0, 0x1f)));
    assert!(!agree(0x0808_0004, Width::Word, values(0, 0x1f)));
    // GITS_CTLR.Quiescent may differ only while the ITS is enabled on both machines.
    assert!(agree(0x0808_0000, Width::Word, values(1, 1 << 31 | 1)));
    assert!(!agree(0x0808_0000, Width::Word, values(0, 1 << 31)));
    // The page size may differ only until software writes it.
    assert!(!agree(0x0808_0100, Width::Double, values(0, 1 << 9)));
    assert!(difference::agree(
        0x0808_0108,
        Width::Double,
        difference::Moment::AfterReset,
        values(0, 1 << 9)
    ));
}

#[test]
fn documentation_lists_every_exception() {
    let text = include_str!("../../../../docs/differential.md");
    for difference in DIFFERENCES {
        assert!(text.contains(difference.name), "{}", difference.name);
        assert!(text.contains(difference.section), "{}", difference.section);
    }
}
