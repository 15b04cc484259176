//! Levels as senders write them, brought to six words.

/// The level of an event that names none.
pub(crate) const DEFAULT: &str = "INFO";

/// Characters kept of a level that we don't know.
const LEVEL_CHARS: usize = 32;

/// TRACE, DEBUG, INFO, WARN, ERROR or FATAL; a level that we don't know stays, in upper case and
/// cut short. Numbers are syslog severities (0 to 7) or those of bunyan and pino (10 to 60).
pub fn normalize(sent: &str) -> String {
    let sent = sent.trim();
    let upper = crate::text::cut(sent, LEVEL_CHARS).to_uppercase();
    let known = match upper.as_str() {
        "" => DEFAULT,
        "TRACE" | "TRC" | "T" | "VERBOSE" | "FINER" | "FINEST" | "SILLY" | "10" => "TRACE",
        "DEBUG" | "DBG" | "D" | "FINE" | "7" | "20" => "DEBUG",
        "INFO" | "INF" | "I" | "INFORMATION" | "INFORMATIONAL" | "NOTICE" | "CONFIG" | "5" | "6" | "30" => "INFO",
        "WARN" | "WARNING" | "WRN" | "W" | "4" | "40" => "WARN",
        "ERROR" | "ERR" | "E" | "SEVERE" | "FAILURE" | "3" | "50" => "ERROR",
        "FATAL" | "FTL" | "F" | "CRITICAL" | "CRIT" | "C" | "ALERT" | "EMERGENCY" | "EMERG" | "PANIC" | "0" | "1"
        | "2" | "60" => "FATAL",
        _ => return crate::text::cut(&upper, LEVEL_CHARS).to_owned(),
    };
    known.to_owned()
}
