use super::access::Width;
use super::*;

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

#[track_caller]
fn finds_every_planted_fault(watch: Watch) {
    for mutant in MUTANTS {
        let mut model = Model::new(mutant.world, watch).unwrap();
        let found = hunt(mutant, LIMITS, &mut model).unwrap();
        assert!(found.is_some(), "{} is not found by {watch:?}", mutant.name);
    }
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn every_planted_fault_is_found_with_all_cpus_watched() {
    finds_every_planted_fault(Watch::All);
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn every_planted_fault_is_found_with_one_cpu_watched() {
    finds_every_planted_fault(Watch::One);
}

#[test]
fn sequences_of_operations_find_planted_faults() {
    for mutant in MUTANTS.iter().filter(|mutant| mutant.name.starts_with("the first input")) {
        let mut model = Model::faulty(mutant, Watch::All).unwrap();
        let mut right = Model::new(mutant.world, Watch::All).unwrap();
        let found = sequences(&mut model, &mut right).unwrap();
        assert!(found.mismatch.is_some(), "{}", mutant.name);
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
    let mutant = MUTANTS.iter().find(|mutant| mutant.name == "fewer priority bits").unwrap();
    let (mut faulty, mut right) =
        (Model::faulty(mutant, Watch::All).unwrap(), Model::new(mutant.world, Watch::All).unwrap());
    let of = Comparison { family: Family::Wired, world: mutant.world };
    let found = compare(of, LIMITS, &mut faulty, &mut right).unwrap().mismatch.unwrap();
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
