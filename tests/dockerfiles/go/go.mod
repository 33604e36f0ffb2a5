module example.com/server

go 1.22

require example.com/mux v1.8.1
