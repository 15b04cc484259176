//! The environment that tests take their addresses from, as `dev/env` exports it.

use anyhow::Context;

/// What to do when a variable is not set.
const HOW: &str = "start the servers and export their addresses:\n    \
    LOGGERHUB_INSTANCE=mine dev/stores up && eval \"$(LOGGERHUB_INSTANCE=mine dev/env)\"\n\
    or run everything with `make test`";

/// The variable's value; an error that names it and says how to set it.
#[allow(clippy::disallowed_methods, reason = "tests have no main in which settings could be parsed")]
pub fn variable(name: &str) -> anyhow::Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.with_context(|| format!("{name} is not set: {HOW}"))
}

/// The variable's value if it is set.
#[allow(clippy::disallowed_methods, reason = "tests have no main in which settings could be parsed")]
pub fn optional_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_is_named_with_the_command_to_run() {
        let error = variable("LOGGERHUB_NEVER_SET").unwrap_err().to_string();
        assert!(error.contains("LOGGERHUB_NEVER_SET") && error.contains("dev/stores up"), "{error}");
    }
}
