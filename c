if !
