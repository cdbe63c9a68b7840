//! Places where a test lets the process die (feature `failpoints`; `FAILPOINTS="name=return"`, the
//! syntax of the crate `fail`). Each stands between two steps of a file's journey, so that a test
//! can show what becomes of the file wherever the process ends. In any other build passing one
//! compiles to nothing.

/// The process dies here, as by `kill -9`, if that was asked for.
#[inline]
pub fn at(name: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| std::process::abort());
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// Reads what the environment asks for; it holds until the value is dropped.
#[cfg(feature = "failpoints")]
pub fn set_up() -> impl Drop {
    struct Scenario(Option<fail::FailScenario<'static>>);
    impl Drop for Scenario {
        fn drop(&mut self) {
            if let Some(scenario) = self.0.take() {
                scenario.teardown();
            }
        }
    }
    Scenario(Some(fail::FailScenario::setup()))
}
