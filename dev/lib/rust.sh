# LoggerHub's own programs.
# shellcheck shell=bash

# All of the workspace at once, so that cargo chooses the same features as for its tests and builds
# each library once.
rust_build() { rust build --locked --workspace --bins; }

program() { echo "$CARGO_TARGET_DIR/debug/$1"; }

# cargo in this checkout, which may be another than the one that built last. cargo takes a file for
# changed if it is newer than what was made of it. By that, all of a fresh clone is changed, and nothing
# of an older checkout is, which would get the programs of the clone. So what files held and how old they
# were is written down after a build and put right before the next one.
rust() { # ARGUMENTS...
    local before
    cd "$ROOT"
    mkdir -p "$CARGO_TARGET_DIR"
    target_bound
    sources_settle
    before=$(sources)
    cargo "$@" || return
    # What was changed meanwhile may be built or not: it is left out.
    { echo "$ROOT" && comm -12 <(sort <<<"$before") <(sources | sort); } >"$(built_from).new"
    mv "$(built_from).new" "$(built_from)"
}

# What was built from sources that are gone piles up, by gigabytes for a day of work. Above a bound, what the
# compiler keeps to go on from goes, and what nobody read for three days; cargo makes again what it misses.
# Not while another cargo works there: it holds its lock.
target_bound() {
    local debug=$CARGO_TARGET_DIR/debug
    [ -e "$debug/.cargo-lock" ] || return 0
    [ "$(du -s --block-size=1G "$CARGO_TARGET_DIR" | cut -f 1)" -ge "${LOGGERHUB_TARGET_GIB:-40}" ] || return 0
    flock --nonblock "$debug/.cargo-lock" find "$debug/incremental" -mindepth 1 -delete || return 0
    find "$CARGO_TARGET_DIR"/*/deps -type f -atime +2 -delete
}

built_from() { echo "$CARGO_TARGET_DIR/built-from"; }

# Each file with its time and what it holds: 1790000000.123456789 HASH  ./PATH
sources() {
    local files
    files=$(find . \( -name .git -o -path ./target -o -path ./fuzz/corpus \) -prune -o -type f -print | sort)
    paste -d ' ' <(xargs -d '\n' stat -c %.9Y <<<"$files") <(xargs -d '\n' sha256sum <<<"$files")
}

# Gives files that were built the time that they had then, and others the present one.
sources_settle() {
    local time path
    if sources_known; then
        awk -v "written=$(stat -c %.9Y "$(built_from)")" '
            { path = substr($0, index($0, "  ") + 2) }
            FNR == NR { time[path] = $1; hash[path] = $2; next }
            hash[path] == $2 { if (time[path] != $1) print "@" time[path] "\t" path; next }
            $1 <= written { print "now\t" path }
        ' "$(built_from)" <(sources)
    elif [ "$(head -n 1 "$(built_from)" 2>/dev/null)" != "$ROOT" ]; then
        sources | awk '{ print "now\t" substr($0, index($0, "  ") + 2) }'
    fi | while IFS=$'\t' read -r time path; do
        touch -d "$time" "$path"
    done
    folders_settle
}

# A folder that a build script watches is as old as the newest file in it: a clone's own is new.
folders_settle() {
    local folder newest
    find operator/migrations -depth -type d | while read -r folder; do
        newest=$(find "$folder" -type f -printf '%T@\t%p\n' | sort -n | tail -n 1 | cut -f 2)
        touch -r "$newest" "$folder"
    done
}

# Whether what was written down is about the last build: not if cargo was run by hand since.
sources_known() {
    [ -e "$(built_from)" ] && [ -z "$(find "$CARGO_TARGET_DIR" -path '*/.fingerprint/loggerhub-*' -newer "$(built_from)" -print -quit)" ]
}
