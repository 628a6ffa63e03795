//! Names: the grammar by which a name at a provider is known to be ours, whole.

use crate::ids::is_base32;

/// How many characters of base32 stand in a name.
const UNIQUE: usize = 12;

/// The names `<prefix>-<environment>-<12 characters of base32>`, each with `-g<n>` behind it from the second
/// generation on: what [`short`](crate::ids::short) and [`Call::name`](crate::Call::name) make.
///
/// A name is read whole or not at all. `am-dev-0123456789ab` is one of ours; `am-dev-0123456789ab-backup`,
/// `am-dev-0123456789abx` and `am-dev-0123456789ab-by-alice` are somebody's who knows our names, and not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    stem: String,
    is_numbered: bool,
}

/// The parts of a name that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OurName<'n> {
    /// The 12 characters that tell it from others of its kind.
    pub unique: &'n str,
    /// The number behind them, where the grammar has one.
    pub number: Option<u64>,
    /// Its generation: 1 where the name does not say.
    pub generation: u32,
}

impl Names {
    /// Names that begin with `<prefix>-<environment>-`.
    pub fn of(prefix: &str, environment: &str) -> Self {
        Self { stem: format!("{prefix}-{environment}-"), is_numbered: false }
    }

    /// Names with `-<n>` behind the 12 characters and before the generation: several things of one owner.
    #[must_use]
    pub fn numbered(mut self) -> Self {
        self.is_numbered = true;
        self
    }

    /// Whether a name begins as ours do. What begins so and does not [`read`](Self::read) is shown as foreign.
    pub fn begins(&self, name: &str) -> bool {
        name.starts_with(&self.stem)
    }

    /// The parts of a name, if this grammar makes it, whole.
    pub fn read<'n>(&self, name: &'n str) -> Option<OurName<'n>> {
        let rest = name.strip_prefix(&self.stem)?;
        let (unique, rest) = rest.split_at_checked(UNIQUE)?;
        if !is_base32(unique) {
            return None;
        }
        let (number, rest) = if self.is_numbered {
            let rest = rest.strip_prefix('-')?;
            let end = rest.find('-').unwrap_or(rest.len());
            let (digits, rest) = rest.split_at_checked(end)?;
            (Some(plain(digits)?), rest)
        } else {
            (None, rest)
        };
        let generation = match rest {
            "" => 1,
            rest => u32::try_from(plain(rest.strip_prefix("-g")?)?).ok().filter(|number| *number >= 2)?,
        };
        Some(OurName { unique, number, generation })
    }
}

/// A number as we write it: digits alone, and none in front that says nothing.
fn plain(digits: &str) -> Option<u64> {
    let is_plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if is_plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_ours_whole_or_not_at_all() {
        let names = Names::of("am", "dev");
        let read = names.read("am-dev-0123456789ab");
        assert_eq!(read, Some(OurName { unique: "0123456789ab", number: None, generation: 1 }));
        assert_eq!(names.read("am-dev-0123456789ab-g12").map(|name| name.generation), Some(12));
        for foreign in [
            "am-dev-0123456789ab-backup",
            "am-dev-0123456789abx",
            "am-dev-0123456789ab-by-alice",
            "am-dev-0123456789ab-g1",
            "am-dev-0123456789ab-g02",
            "am-dev-0123456789ab-g",
            "am-dev-0123456789ab-g2x",
            "am-dev-0123456789ab-g99999999999",
            "am-dev-0123456789ab-3",
            "am-dev-0123456789ab ",
            "am-dev-0123456789aB",
            "am-dev-0123456789al",
            "am-dev-0123456789",
            "am-prod-0123456789ab",
            "xam-dev-0123456789ab",
            "am-dev-ööööööö",
            "",
        ] {
            assert_eq!(names.read(foreign), None, "{foreign:?}");
        }
        assert!(names.begins("am-dev-0123456789ab-backup") && !names.begins("am-prod-0123456789ab"));
    }

    #[test]
    fn a_numbered_name_has_its_number_before_its_generation() {
        let names = Names::of("am", "dev").numbered();
        let read = names.read("am-dev-0123456789ab-7-g3");
        assert_eq!(read, Some(OurName { unique: "0123456789ab", number: Some(7), generation: 3 }));
        assert_eq!(names.read("am-dev-0123456789ab-0").and_then(|name| name.number), Some(0));
        for foreign in [
            "am-dev-0123456789ab",
            "am-dev-0123456789ab-g2",
            "am-dev-0123456789ab-07",
            "am-dev-0123456789ab-",
        ] {
            assert_eq!(names.read(foreign), None, "{foreign:?}");
        }
    }
}
