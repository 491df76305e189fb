//! Classifies the growth of a cost.

use std::fmt;

/// Growth of a cost from the smallest to the largest value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Trend {
    /// Cost grows with less than the 0.4th power, which cache effects can explain.
    Flat,
    /// Cost grows with at most the 1.2th power.
    Linear,
    /// Cost grows with more than the 1.2th power.
    Steep,
}

impl Trend {
    pub(super) fn of(points: &[(u32, f64)]) -> Self {
        let (Some((less, first)), Some((more, last))) = (points.first(), points.last()) else {
            return Self::Flat;
        };
        let power = (last / first).ln() / (f64::from(*more) / f64::from(*less)).ln();
        match power {
            power if power < 0.4 => Self::Flat,
            power if power < 1.2 => Self::Linear,
            _ => Self::Steep,
        }
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flat => "flat",
            Self::Linear => "linear",
            Self::Steep => "steeper than linear",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_classified_as_flat_linear_or_steep() {
        let grown = |last| Trend::of(&[(1, 10.0), (10, 11.0), (100, last)]);
        assert_eq!([11.0, 60.0].map(grown), [Trend::Flat; 2]);
        assert_eq!([100.0, 1000.0, 2000.0].map(grown), [Trend::Linear; 3]);
        assert_eq!(grown(10_000.0), Trend::Steep);
    }
}
