echo "$MODE with $(cat deps)"
