# Each line becomes a line of a C string.
s/["\\]/\\&/g
s/^/"/
s/$/\\n"/
