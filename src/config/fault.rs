//! What is wrong with a configuration, told to a person: which setting, where it comes from,
//! what was found, what is allowed, what to do. No fault ever holds a secret's value.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting, or what else is at fault.
    pub key: String,
    /// The file with its line, or the variable, that set it; none if nothing did.
    pub origin: Option<String>,
    /// What was found; never the value of a secret.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
    /// What to do.
    pub way_out: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => writeln!(f, "{}, from {origin}", self.key)?,
            None => writeln!(f, "{}, not set", self.key)?,
        }
        writeln!(f, "   found    {}", self.found)?;
        writeln!(f, "   allowed  {}", self.allowed)?;
        write!(f, "   do       {}", self.way_out)
    }
}

/// Every fault that was found, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub(super) Vec<Fault>);

impl Faults {
    /// The faults, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, s) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        writeln!(
            f,
            "{count} fault{s} in the configuration; nothing was started or touched"
        )?;
        for (number, fault) in (1..).zip(&self.0) {
            write!(f, "\n{number}. {fault}\n")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// What is wrong with a value, before it is known whose value it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub found: String,
    pub allowed: String,
    pub way_out: String,
}

impl Wrong {
    pub fn new(
        found: impl Into<String>,
        allowed: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self {
            found: found.into(),
            allowed: allowed.into(),
            way_out: way_out.into(),
        }
    }

    pub fn of(self, key: impl Into<String>, origin: Option<&str>) -> Fault {
        let Self {
            found,
            allowed,
            way_out,
        } = self;
        Fault {
            key: key.into(),
            origin: origin.map(Into::into),
            found,
            allowed,
            way_out,
        }
    }
}
