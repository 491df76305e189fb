//! Memory accesses: their mnemonics, and the mnemonics with the next weaker ordering.

/// The effect of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Load,
    Store,
    /// Load-exclusive.
    Reserve,
    /// Store-exclusive.
    Conclude,
    CompareAndSwap,
    Swap,
    /// An atomic operation: `add`, `set`, `clr`, `eor`, `umax`. `true` if it has a destination.
    Atomic(&'static str, bool),
}

/// A single memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    pub(crate) kind: Kind,
    /// Size in bytes, or `None` if the register determines it.
    pub(crate) bytes: Option<u64>,
    /// `true` for sign-extending loads.
    pub(crate) is_signed: bool,
}

const OPERATIONS: [&str; 5] = ["add", "set", "clr", "eor", "umax"];

impl Access {
    /// Decodes a mnemonic. Returns `None` if it isn't a single access.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (base, bytes) = match name {
            _ if let Some(base) = name.strip_suffix('b') => (base, Some(1)),
            _ if let Some(base) = name.strip_suffix('h') => (base, Some(2)),
            _ if name.ends_with("sw") => (name.trim_end_matches('w'), Some(4)),
            _ => (name, None),
        };
        let access = |kind, is_signed| Some(Self { kind, bytes, is_signed });
        match base {
            "ldr" | "ldur" | "ldar" | "ldapr" => return access(Kind::Load, false),
            "ldrs" | "ldurs" => return access(Kind::Load, true),
            "str" | "stur" | "stlr" => return access(Kind::Store, false),
            "ldxr" | "ldaxr" => return access(Kind::Reserve, false),
            "stxr" | "stlxr" => return access(Kind::Conclude, false),
            _ => {}
        }
        let order = |rest: &str| ["", "a", "l", "al"].contains(&rest);
        if base.strip_prefix("cas").is_some_and(order) {
            return access(Kind::CompareAndSwap, false);
        }
        if base.strip_prefix("swp").is_some_and(order) {
            return access(Kind::Swap, false);
        }
        OPERATIONS.into_iter().find_map(|operation| {
            let is = |prefix| {
                base.strip_prefix(prefix)
                    .and_then(|rest| rest.strip_prefix(operation))
                    .is_some_and(order)
            };
            let reads = is("ld");
            (reads || is("st")).then(|| access(Kind::Atomic(operation, reads), false))?
        })
    }

    /// Computes an atomic operation.
    pub(crate) fn apply(operation: &str, old: u64, operand: u64) -> u64 {
        match operation {
            "add" => old.wrapping_add(operand),
            "set" => old | operand,
            "clr" => old & !operand,
            "eor" => old ^ operand,
            _ => old.max(operand),
        }
    }
}

/// Returns the mnemonics of an instruction with its ordering weakened by one step.
///
/// A load-acquire becomes an `ldapr`, which compilers emit for Acquire on cores with RCpc; an
/// `ldapr` becomes a plain load. A read-modify-write loses either its acquire or its release half.
pub(crate) fn weaker(name: &str) -> Vec<String> {
    let size = if name.ends_with(['b', 'h']) && Access::of(name).is_some() {
        &name[name.len() - 1..]
    } else {
        ""
    };
    let base = name.strip_suffix(size).unwrap_or(name);
    let simple = match base {
        "ldar" => "ldapr",
        "ldapr" => "ldr",
        "stlr" => "str",
        "ldaxr" => "ldxr",
        "stlxr" => "stxr",
        _ => "",
    };
    if !simple.is_empty() {
        return vec![format!("{simple}{size}")];
    }
    let is_rmw = Access::of(base).is_some_and(|access| {
        matches!(access.kind, Kind::CompareAndSwap | Kind::Swap | Kind::Atomic(..))
    });
    // No read-modify-write instruction has a name that ends in `al` without its ordering, so the
    // suffix is the ordering.
    match base {
        _ if !is_rmw => Vec::new(),
        _ if let Some(stem) = base.strip_suffix("al") => {
            vec![format!("{stem}a{size}"), format!("{stem}l{size}")]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mnemonics_are_decoded() {
        let kind = |name| Access::of(name).map(|access| (access.kind, access.bytes));
        assert_eq!(kind("ldsetal"), Some((Kind::Atomic("set", true), None)));
        assert_eq!(kind("stclrl"), Some((Kind::Atomic("clr", false), None)));
        assert_eq!(kind("casalh"), Some((Kind::CompareAndSwap, Some(2))));
        assert_eq!(kind("ldaprb"), Some((Kind::Load, Some(1))));
        assert_eq!(kind("ldrsw"), Some((Kind::Load, Some(4))));
        assert_eq!(kind("stlxr"), Some((Kind::Conclude, None)));
        assert_eq!(kind("add"), None);
        assert_eq!(kind("ldp"), None);
        assert_eq!(kind("sub"), None);
    }

    #[test]
    fn each_ordering_has_a_weaker_one() {
        assert_eq!(weaker("ldar"), ["ldapr"]);
        assert_eq!(weaker("ldarh"), ["ldaprh"]);
        assert_eq!(weaker("casalh"), ["casah", "caslh"]);
        assert_eq!(weaker("ldsetal"), ["ldseta", "ldsetl"]);
        assert_eq!(weaker("swpal"), ["swpa", "swpl"]);
        assert_eq!(weaker("stlxr"), ["stxr"]);
        assert!(weaker("ldr").is_empty() && weaker("sub").is_empty());
    }
}
