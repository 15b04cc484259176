# The chart's values as a Markdown table: one row for each key that has a default or a comment above it.
# It reads values.yaml as it is written here: two spaces a level, a key a line, lists below their key.

function flush_comment() { comment = ""; comment_indent = -1 }

function cell(text) {
    gsub(/\|/, "\\|", text)
    gsub(/</, "\\&lt;", text)
    return text
}

BEGIN { flush_comment() }

/^ *$/ { flush_comment(); next }

/^ *#/ {
    indent = index($0, "#")
    text = substr($0, indent + 1)
    sub(/^ /, "", text)
    comment = (indent == comment_indent) ? comment " " text : text
    comment_indent = indent
    next
}

# An item of the list whose key stands above.
/^ *- / {
    text = $0
    sub(/^ *- /, "", text)
    value[rows] = value[rows] (value[rows] == "" ? "[" : ", ") text
    list[rows] = 1
    next
}

/^ *[A-Za-z][A-Za-z0-9]*:/ {
    match($0, /[A-Za-z]/)
    level = int((RSTART - 1) / 2)
    key[level] = substr($0, RSTART, index($0, ":") - RSTART)
    path = key[0]
    for (i = 1; i <= level; i++) path = path "." key[i]
    rows++
    name[rows] = path
    value[rows] = substr($0, index($0, ":") + 1)
    sub(/^ +/, "", value[rows])
    said[rows] = (comment_indent == RSTART) ? comment : ""
    flush_comment()
    next
}

{ print "values-table: can't read line " NR ": " $0 > "/dev/stderr"; failed = 1; exit 1 }

END {
    if (failed) exit 1
    print "| Value | Default | |"
    print "|---|---|---|"
    for (row = 1; row <= rows; row++) {
        if (list[row]) value[row] = value[row] "]"
        if (value[row] == "" && said[row] == "") continue
        shown = value[row] == "" ? "" : " `" cell(value[row]) "`"
        print "| `" name[row] "` |" shown " | " cell(said[row]) (said[row] == "" ? "|" : " |")
    }
}
